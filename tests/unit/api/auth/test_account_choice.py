"""Which accounts a request asks for in a header."""

import pytest

from api.auth.account_choice import parse_account_choice
from worker.core.errors import DreameryError
from worker.core.messages.chinese import translate


@pytest.mark.parametrize("header", ["provider=foo", "provider=", "provider", "region=cn", "own, pool"])
def test_wrong_choices_are_refused_in_both_languages(header: str) -> None:
    with pytest.raises(DreameryError) as caught:
        parse_account_choice(header)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "x-accounts")
    message, chinese = caught.value.message, translate(caught.value.message)
    assert chinese is not None
    for known in ("any, own, pool", "provider=ark", header):
        assert known in message
        assert known in chinese
    assert " or " not in chinese
