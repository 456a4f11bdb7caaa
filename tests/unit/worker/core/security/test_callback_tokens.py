"""Addresses of callbacks lead back to the attempt that they belong to, and to nothing else."""

from uuid import uuid4

import pytest

from worker.core.security.callback_tokens import callback_url, submit_key_of


def test_address_leads_back_to_the_attempt() -> None:
    key = uuid4()
    url = callback_url("https://example.org/", str(key), provider="ark")
    assert url is not None
    assert url.startswith("https://example.org/hooks/ark/")
    assert submit_key_of(url.rpartition("/")[2]) == key


def test_without_a_public_address_there_is_none() -> None:
    assert callback_url("", str(uuid4()), provider="ark") is None


@pytest.mark.parametrize(
    "token", ["", "x" * 32, "0" * 31, "0" * 33, "3607e826-65f4-4fb8-80de-81dd244261b4", "0" * 32 + "\n", "٣" * 32]
)
def test_other_text_is_no_token(token: str) -> None:
    assert submit_key_of(token) is None
