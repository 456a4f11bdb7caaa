"""Secrets at rest: what opens what, and what no stored form gives away."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.security.encryption import (
    SecretUnreadableError,
    decrypt_secret,
    derived_keys,
    encrypt_secret,
    encryption_key_id,
    master_keys,
    reencrypt_secret,
)
from worker.core.settings import Settings


def _settings(*keys: str) -> Settings:
    return Settings(_env_file=None, master_key=",".join(keys))


@given(plain=st.text(max_size=200), context=st.text(min_size=1, max_size=50))
def test_a_sealed_secret_opens_in_its_own_context_only(plain: str, context: str) -> None:
    settings = _settings("first-key")
    sealed = encrypt_secret(plain, context=context, settings=settings)
    assert decrypt_secret(sealed, context=context, settings=settings) == plain
    with pytest.raises(SecretUnreadableError):
        decrypt_secret(sealed, context=context + "x", settings=settings)


def test_an_older_key_of_the_list_still_opens_and_the_newest_seals() -> None:
    old, both, new = _settings("old"), _settings("new", "old"), _settings("new")
    sealed_before = encrypt_secret("session", context="c", settings=old)
    assert decrypt_secret(sealed_before, context="c", settings=both) == "session"
    with pytest.raises(SecretUnreadableError):
        decrypt_secret(sealed_before, context="c", settings=new)
    assert decrypt_secret(encrypt_secret("session", context="c", settings=both), context="c", settings=new) == "session"


def test_the_same_secret_never_looks_the_same_twice() -> None:
    settings = _settings("key")
    assert encrypt_secret("s", context="c", settings=settings) != encrypt_secret("s", context="c", settings=settings)


def test_a_rotation_rewrites_what_is_not_under_the_newest_key() -> None:
    old, both, new = _settings("old"), _settings("new", "old"), _settings("new")
    before = encrypt_secret("session", context="c", settings=old)
    # As versions before key ids wrote it.
    unnamed = f"v1:{before.rpartition(':')[2]}"
    for sealed in (before, unnamed):
        assert encryption_key_id(sealed, context="c", settings=both) == master_keys(old)[0].id
        assert encryption_key_id(sealed, context="c", settings=new) is None
        after = reencrypt_secret(sealed, context="c", settings=both)
        assert after is not None
        assert decrypt_secret(after, context="c", settings=new) == "session"
        assert reencrypt_secret(after, context="c", settings=both) is None
    with pytest.raises(SecretUnreadableError):
        reencrypt_secret(before, context="c", settings=new)


def test_a_key_has_another_derived_key_for_each_purpose() -> None:
    links, cookies = (derived_keys(name, settings=_settings("new", "old")) for name in ("links", "cookies"))
    assert len({*links, *cookies}) == 4
    assert links[1:] == derived_keys("links", settings=_settings("old"))


def test_without_a_master_key_nothing_is_sealed() -> None:
    with pytest.raises(SecretUnreadableError, match="DREAMERY_MASTER_KEY"):
        encrypt_secret("s", context="c", settings=_settings())
