"""Which web pages may call `/mcp`: DNS rebinding."""

import pytest

from api.protocols.mcp.origins import require_known_page
from worker.core.errors import DreameryError

KNOWN = ["https://dreamery.example.com/", " http://chat.example.com:3000", ""]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "dreamery.example.com"},  # a program sends no origin, whatever it calls the server
        {"host": "api.internal:8000"},
        {"host": "dreamery.example.com", "origin": "https://dreamery.example.com"},
        {"host": "dreamery.example.com", "origin": "https://dreamery.example.com:443"},
        {"host": "dreamery.example.com", "origin": "http://chat.example.com:3000"},
        {"host": "127.0.0.1:8000", "origin": "http://localhost:6274"},
        {"host": "[::1]:8000", "origin": "http://[::1]:6274"},
        {"host": "192.168.1.20:8000", "origin": "https://dreamery.example.com"},
        {"host": "localhost:8000", "sec-fetch-site": "same-origin"},
    ],
)
def test_programs_and_known_pages_may_call(headers):
    require_known_page(headers, KNOWN)


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"host": "dreamery.example.com", "origin": "https://evil.example"}, "origin"),
        ({"host": "127.0.0.1:8000", "origin": "null"}, "origin"),
        ({"host": "127.0.0.1:8000", "origin": ""}, "origin"),
        ({"host": "127.0.0.1:8000", "origin": "http://192.168.1.20:8000"}, "origin"),
        ({"host": "dreamery.example.com", "origin": "http://dreamery.example.com"}, "origin"),  # another scheme
        ({"host": "dreamery.example.com", "origin": "https://dreamery.example.com.evil.example"}, "origin"),
        ({"host": "dreamery.example.com", "origin": "http://localhost.evil.example"}, "origin"),
        ({"host": "dreamery.example.com", "origin": "http://[broken"}, "origin"),
        # The attacker's own name now points to this machine.
        ({"host": "evil.example:8000", "origin": "http://evil.example:8000"}, "origin"),
        ({"host": "evil.example:8000", "sec-fetch-site": "same-origin"}, "host"),
        ({"host": "evil.example", "origin": "http://localhost:6274"}, "host"),
    ],
)
def test_other_pages_and_rebound_names_are_refused(headers, param):
    with pytest.raises(DreameryError) as refused:
        require_known_page(headers, KNOWN)
    assert (refused.value.code, refused.value.param) == ("forbidden", param)
