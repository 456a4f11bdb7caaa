"""Decode text of request bodies: in the charset that the client names, otherwise as UTF-8, and never with a loss."""

import codecs
import json

# Charsets that HTTP clients name -> the codec that decodes all of their text (WHATWG Encoding: `gb2312` means GBK).
_CODECS = {
    **dict.fromkeys(("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")),
    **dict.fromkeys(("gb2312", "gbk", "gb18030"), "gb18030"),
    **dict.fromkeys(("big5", "cp950", "big5hkscs"), "big5hkscs"),
    **dict.fromkeys(("shift_jis", "cp932"), "cp932"),
    **dict.fromkeys(("euc_kr", "cp949"), "cp949"),
    **dict.fromkeys(("euc_jp", "iso2022_jp", "koi8-r", "koi8-u", "mac-roman")),
    **dict.fromkeys(("ascii", "iso8859-1"), "cp1252"),
    **dict.fromkeys(f"iso8859-{number}" for number in (2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 14, 15, 16)),
    **dict.fromkeys(f"cp{number}" for number in range(1250, 1259)),
}
# Charsets that some HTTP libraries name by default, whatever the text is encoded in.
_UNRELIABLE = frozenset({"ascii", "iso8859-1", "cp1252"})
_SHOWN_CHARS = 40


class CharsetError(ValueError):
    """The text is not in its charset. The message says what to send; it has no full stop."""


def decode_text(data: bytes | bytearray, charset: str | None = None) -> str:
    """Decode text in the named charset, or as UTF-8 without one. Raises `CharsetError`."""
    name = _codec_name(charset) if charset else "utf-8"
    for codec in ("utf-8", "cp1252") if name in _UNRELIABLE else (_CODECS[name] or name,):
        try:
            return data.decode(codec)
        except UnicodeDecodeError as error:
            position, byte = error.start, error.object[error.start]
    if name == "utf-8":
        raise CharsetError(
            f"the text is not UTF-8 (byte 0x{byte:02X} at position {position}). Send UTF-8, or name the charset, for "
            "example `charset=gbk` in the Content-Type"
        )
    raise CharsetError(f"the text is not in {name}, the charset that is named (position {position}). Send UTF-8")


def decode_json(data: bytes | bytearray, charset: str | None = None) -> str:
    """Decode JSON: UTF-8, UTF-16 or UTF-32 by its first bytes, unless a charset is named. Raises `CharsetError`."""
    detected = json.detect_encoding(bytes(data[:4]))
    if detected != "utf-8":
        try:
            return data.decode(detected).removeprefix("\ufeff")
        except UnicodeDecodeError:
            raise CharsetError(f"the text is not {detected.upper()}, as its first bytes announce. Send UTF-8") from None
    return decode_text(data, charset).removeprefix("\ufeff")


def _codec_name(charset: str) -> str:
    label = charset.strip("\"' \t").lower().removeprefix("x-").replace("windows-", "cp")
    try:
        name = codecs.lookup(label).name
    except (LookupError, ValueError):
        name = ""
    # A list, because Python has codecs that are no charsets, and some of them are slow.
    if name not in _CODECS:
        raise CharsetError(f"the charset {charset[:_SHOWN_CHARS]!r} is unknown. Send UTF-8")
    return name
