"""Where a key may stand in the headers of a request."""

import pytest
from starlette.requests import Request

from api.auth.dependencies import read_credential


def credential(**headers: str) -> str:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return read_credential(Request({"type": "http", "headers": raw}))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Bearer abc", "abc"),
        ("bearer   abc:cn", "abc:cn"),
        ("Bearer a,b", "a,b"),
        ("Bearer Bearer abc", "abc"),
        ("abc", "abc"),
        ("  abc:cn  ", "abc:cn"),
        ("sk-dreamery-abc", "sk-dreamery-abc"),
        ("abc:cn, us-def ,ghi", "abc:cn, us-def ,ghi"),
        ("http://user:pass@proxy:1@abc", "http://user:pass@proxy:1@abc"),
        ("Token abc", "abc"),
        ("Key abc", "abc"),
        ("ApiKey abc", "abc"),
        ("key-abc", "key-abc"),
        ("bearerabc", "bearerabc"),
        ("Bearer", ""),
        ("", ""),
        ("Basic dXNlcjpwYXNz", ""),
        ("Digest username=a, realm=b", ""),
        ("AWS4-HMAC-SHA256 Credential=a", ""),
    ],
)
def test_session_is_accepted_with_and_without_bearer(header, expected):
    assert credential(authorization=header) == expected


def test_keys_of_azure_and_others_are_accepted():
    assert credential(api_key=" abc ") == "abc"
    assert credential(x_api_key="abc") == "abc"
    assert credential(authorization="Basic x", api_key="abc") == "abc"
    assert credential(authorization="Bearer first", api_key="second") == "first"


def test_long_header_is_read_in_linear_time():
    assert credential(authorization="a" + ", " * 50_000 + "b c") == ""
