"""Text of bodies is decoded without loss: named charsets, byte order marks, and an error instead of mojibake."""

import json

import pytest

from api.http.bodies.charsets import CharsetError, decode_json, decode_text

BOAT = "一只红色的小船"


@pytest.mark.parametrize(
    ("charset", "codec", "text"),
    [
        (None, "utf-8", BOAT),
        ("utf-8", "utf-8", BOAT),
        ("gbk", "gbk", BOAT),
        ("GB2312", "gbk", "朱镕基"),  # a character that GB2312 itself lacks
        ("gb18030", "gb18030", BOAT),
        ('"x-gbk"', "gbk", BOAT),
        ("big5", "big5", "一隻紅色的小船"),
        ("Shift_JIS", "cp932", "赤い船①"),
        ("euc-kr", "cp949", "빨간 배"),
        ("windows-1251", "cp1251", "красная лодка"),
        ("windows-1252", "cp1252", "café"),
        ("iso-8859-1", "latin-1", "café"),
        ("iso-8859-1", "utf-8", BOAT),  # the default of some HTTP libraries, whatever they send
        ("us-ascii", "utf-8", BOAT),
    ],
)
def test_text_is_decoded_in_the_named_charset(charset, codec, text):
    assert decode_text(text.encode(codec), charset) == text


@pytest.mark.parametrize("codec", ["gbk", "big5", "cp932", "cp1251", "latin-1"])
def test_other_text_without_a_charset_is_an_error_with_a_hint(codec):
    text = {"gbk": BOAT, "big5": "紅船", "cp932": "赤い", "cp1251": "лодка", "latin-1": "café"}[codec]
    with pytest.raises(CharsetError, match="charset=gbk"):
        decode_text(text.encode(codec))


@pytest.mark.parametrize(
    "charset", ["nonsense", "zlib", "hex", "punycode", "unicode_escape", "rot13", "", "\x00", "a" * 999]
)
def test_only_charsets_of_the_web_are_accepted(charset):
    if charset:
        with pytest.raises(CharsetError, match="unknown"):
            decode_text(b"abc", charset)
    else:
        assert decode_text(b"abc", charset) == "abc"


def test_text_that_is_not_in_its_named_charset_is_an_error():
    with pytest.raises(CharsetError, match="gbk"):
        decode_text(b"\xff\xff", "gbk")


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_json_in_every_unicode_encoding_is_read(codec):
    body = json.dumps({"prompt": BOAT}, ensure_ascii=False).encode(codec)
    assert json.loads(decode_json(body)) == {"prompt": BOAT}


def test_json_in_a_named_charset_is_read():
    body = json.dumps({"prompt": BOAT}, ensure_ascii=False).encode("gbk")
    assert json.loads(decode_json(body, "gbk")) == {"prompt": BOAT}
    with pytest.raises(CharsetError, match="not UTF-8"):
        decode_json(body)
    with pytest.raises(CharsetError, match="first bytes"):
        decode_json(b"\xff\xfe{\x00\x00\xd8")
