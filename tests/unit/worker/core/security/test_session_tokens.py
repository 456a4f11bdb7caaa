"""Notations of session tokens (protocol section 1.3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.catalog.provider_data import all_providers
from worker.core.errors import DreameryError
from worker.core.security.session_tokens import check_proxy, mask_token, parse_token, parse_tokens

REGIONS = all_providers()["dreamina"].regions


def pairs(text: str, default: str = "auto") -> list[tuple[str, str]]:
    return [(token.session, token.region) for token in parse_tokens(text, default)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abc", [("abc", "auto")]),
        ("Bearer abc", [("abc", "auto")]),
        ("bearer  a , ,b,", [("a", "auto"), ("b", "auto")]),
        ("us-abc,HK-abc,Jp-abc,sg-abc", [("abc", "us"), ("abc", "hk"), ("abc", "jp"), ("abc", "sg")]),
        (
            "abc:cn,abc:CN,abc:sandbox,abc:us,abc:auto",
            [("abc", "cn"), ("abc", "sandbox"), ("abc", "us"), ("abc", "auto")],
        ),
        ("us-abc:US", [("abc", "us")]),
        ("cn-abc", [("cn-abc", "auto")]),
        ("a:b:cn", [("a:b", "cn")]),
        ("abc:12", [("abc:12", "auto")]),
        ("a%3Ab", [("a%3Ab", "auto")]),
        ("a,a,us-a,a", [("a", "auto"), ("a", "us")]),
        ("x" * 512, [("x" * 512, "auto")]),
    ],
)
def test_token_notations(text, expected):
    assert pairs(text) == expected


def test_default_region_comes_from_the_settings():
    assert pairs("abc,us-abc", "cn") == [("abc", "cn"), ("abc", "us")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("good,SOCKS4://h:1@us-S3CR3T", "Token 2 is invalid: the proxy must be http"),
        ("socks4a://h:1@S3CR3T", "the proxy must be http"),
        ("http://S3CR3T", "a proxy token has the form"),
        ("http://h:0@S3CR3T", "a proxy token has the form"),
        ("http://h:66000@S3CR3T", "a proxy token has the form"),
        ("http://@S3CR3T", "a proxy token has the form"),
        ("http://h:1/path@S3CR3T", "a proxy token has the form"),
        ("http://S3CR3T/x:y@h:1@abc", "a proxy token has the form"),
        ("http://S3CR3T:pw@h:1@us-abc:cn", "different regions"),
        ("http://S3CR3T:pw@h:1@", "session id"),
        ("S3CR3T:fr", "unknown region"),
        ("us-S3CR3T:cn", "different regions"),
        ("us-", "session id"),
        (":cn", "session id"),
        ("S3CR3T;x=1", "session id"),
        ('S3CR3T"', "session id"),
        ("S3CR3T tail", "session id"),
        ("S3CR3T\x00", "session id"),
        ("S3CR3Té", "session id"),
        ("S3CR3T" + "x" * 512, "session id"),
        (",".join(f"S3CR3T{i}" for i in range(101)), "At most 100"),
    ],
)
def test_invalid_token_is_refused_without_echoing_it(text, words):
    with pytest.raises(DreameryError) as caught:
        parse_tokens(text, "auto")
    assert caught.value.code == "invalid_api_key"
    assert words in caught.value.message
    assert "S3CR3T" not in f"{caught.value!r}{caught.value.message}{caught.value.detail}"


@pytest.mark.parametrize("text", ["", "  ", "Bearer", "Bearer ", "Bearer , ,"])
def test_missing_token_is_refused(text):
    with pytest.raises(DreameryError) as caught:
        parse_tokens(text, "auto")
    assert caught.value.code == "missing_api_key"


def test_repr_hides_the_session():
    assert "S3CR3T" not in repr(parse_tokens("S3CR3T:cn", "auto"))


@pytest.mark.parametrize(
    ("text", "proxy", "session", "region"),
    [
        ("http://h:1@abc", "http://h:1", "abc", "auto"),
        ("HTTPS://Proxy.Example@us-abc", "https://proxy.example:443", "abc", "us"),
        ("http://u:p@w:x@10.0.0.1:8080/@abc:cn", "http://u:p@w:x@10.0.0.1:8080", "abc", "cn"),
        ("socks://h@abc", "socks5://h:1080", "abc", "auto"),
        ("socks5h://u%40x:p@h:9@hk-abc", "socks5://u%40x:p@h:9", "abc", "hk"),
        ("direct://@us-abc", "", "abc", "us"),
        ("Direct://abc:cn", "", "abc", "cn"),
        (" http://h:1@abc ,", "http://h:1", "abc", "auto"),
        ("a@b", None, "a@b", "auto"),
    ],
)
def test_token_with_proxy(text, proxy, session, region):
    (token,) = parse_tokens(text, "auto")
    assert (token.proxy, token.session, token.region) == (proxy, session, region)
    assert "h:1" not in repr(token)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("127.0.0.1", ""), ("10.0.0.1", "10.0.0.1:9"), ("localhost", ""), ("a.localhost", ""), ("2130706433", ""),
     ("0177.0.0.1", ""), ("0x7f000001", ""), ("127.1", "")],
)  # fmt: skip
def test_private_proxy_must_be_allowed(host, allowed):
    (token,) = parse_tokens(f"http://u:S3CR3T@{host}:8@abc", "auto")
    with pytest.raises(DreameryError, match="its proxy has a private address") as caught:
        check_proxy(token, 3, frozenset({allowed}))
    assert "S3CR3T" not in str(caught.value)
    for allowed_host in (host, f"{host}:8"):
        check_proxy(token, 3, frozenset({allowed_host}))


@pytest.mark.parametrize("text", ["abc", "direct://@abc", "http://8.8.8.8:1@abc", "socks5://proxy.example@abc"])
def test_public_proxies_and_host_names_are_accepted(text):
    (token,) = parse_tokens(text, "auto")
    check_proxy(token, 1, frozenset({""}))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0123456789abcdef0123:cn", "0123****0123:cn"),
        ("http://u:p@h:1@0123456789abcdef", "0123****cdef:auto"),
        ("0123456789abcde", "01****:auto"),
        ("0123456", "****:auto"),
    ],
)
def test_masked_token_reveals_little(text, shown):
    (token,) = parse_tokens(text, "auto")
    assert mask_token(token) == shown


@given(st.text(max_size=80), st.sampled_from(sorted(REGIONS)))
def test_any_text_gives_valid_tokens_or_invalid_api_key(text, default):
    try:
        tokens = parse_tokens(text, default)
    except DreameryError as refusal:
        code, tokens = refusal.code, []
    else:
        code = ""
    assert code in {"", "invalid_api_key", "missing_api_key"}
    for token in tokens:
        assert token.region in REGIONS
        assert 1 <= len(token.session) <= 512
        assert all("!" <= char <= "~" and char not in '",;\\' for char in token.session)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ark-demo:sandbox", ("ark-demo", "sandbox", "ark")),
        ("http://h:1@ark-x.2:sandbox", ("ark-x.2", "sandbox", "ark")),
        ("ark-demo", ("ark-demo", "auto", "dreamina")),
        ("ark-demo:cn", ("ark-demo", "cn", "dreamina")),
        ("arkdemo:sandbox", ("arkdemo", "sandbox", "dreamina")),
        ("demo:sandbox", ("demo", "sandbox", "dreamina")),
    ],
)
def test_provider_is_named_only_for_the_sandbox(text, expected):
    (token,) = parse_tokens(text, "auto")
    assert (token.session, token.region, token.provider) == expected


@pytest.mark.parametrize(
    ("text", "region", "expected"),
    [
        ("any-thing.AT:all", "cn", ("any-thing.AT:all", "cn")),
        ("us-key", "intl", ("us-key", "intl")),
        ("key:intl", "", ("key", "intl")),
        ("key:INTL", "cn", ("key", "intl")),
        ("http://u:p@h:1@sk-1", "cn", ("sk-1", "cn")),
        ("ark-demo:sandbox", "", ("ark-demo", "sandbox")),
    ],
)
def test_keys_are_taken_as_they_are(text, region, expected):
    token = parse_token(text, 1, region, "ark")
    assert (token.session, token.region, token.provider) == (*expected, "ark")


@pytest.mark.parametrize(
    ("text", "words"), [("S3CR3T", "needs a region, one of: cn, intl"), ("S3CR3T key", "a key has 1 to 512")]
)
def test_unusable_key_is_refused_without_echoing_it(text, words):
    with pytest.raises(DreameryError, match=words) as caught:
        parse_token(text, 1, "", "ark")
    assert "S3CR3T" not in f"{caught.value!r}{caught.value.message}"
