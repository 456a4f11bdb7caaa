"""Tell images, videos and audio by their first bytes, and find where base64 begins in a text."""

import base64
import binascii
import re
from typing import Literal

Media = Literal["image", "video", "audio"]

BASE64_MARK = re.compile(r"(?:data:)?[^,;]{0,100}(?:;[^;,]{0,100}){0,8};base64,|base64(?:://|[,:])", re.IGNORECASE)
URL_SAFE = str.maketrans("-_", "+/")
HEAD_BYTES = 48
# First bytes -> what the file is.
_MAGIC: list[tuple[bytes, Media]] = [
    (rb"\x89PNG|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|II\*\x00|MM\x00\*", "image"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "image"),
    (rb"....ftyp(?:hei[cmsx]|hev[cx]|mif1|msf1|avi[fs])|\x00\x00\x01\x00.\x00|BM....\x00\x00\x00\x00", "image"),
    (rb"....ftypM4[AB]|RIFF....WAVE|OggS|fLaC|ID3|\xff[\xfb\xf3\xf2\xf1\xf9]", "audio"),
    (rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ", "video"),
]  # fmt: skip


def sniff_media(head: bytes) -> Media | None:
    """Return what a file is by its first bytes; None if they say nothing."""
    return next((media for pattern, media in _MAGIC if re.match(pattern, head, re.DOTALL)), None)


def head_of_base64(text: str) -> bytes:
    """Return the first bytes of base64 or of a data URL; empty if they cannot be decoded."""
    mark = BASE64_MARK.match(text)
    begin = mark.end() if mark else 0
    plain = re.sub(r"\s", "", text[begin : begin + 200]).translate(URL_SAFE)[:64]
    try:
        return base64.b64decode(plain[: len(plain) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""
