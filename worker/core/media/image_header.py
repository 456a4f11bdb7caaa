"""Reads format and size of an image from its header: nothing is decoded, and the number of reads is bounded."""

import io
import re
import struct
from typing import IO

import imagesize

from worker.core.media.image import ImageInfo, InvalidImageError

# First bytes -> MIME type. Results have one of the first four.
_RESULTS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
)
_OTHERS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"BM....\x00\x00\x00\x00", re.DOTALL), "BMP"),
    (re.compile(rb"II\*\x00|MM\x00\*"), "TIFF"),
    (re.compile(rb"\x00\x00\x01\x00.\x00", re.DOTALL), "ICO"),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "AVIF"),
    (re.compile(rb"....ftyp(?:hei[cmsx]|hev[cx]|mif1|msf1)", re.DOTALL), "HEIF"),
)
_HEAD_BYTES = 64
# The size of a JPEG stands behind its metadata. Real files need some dozens of reads; the reader takes single bytes.
_MAX_READS, _MAX_SEGMENT_BYTES = 20_000, 65_536
_VP8_START = b"\x9d\x01\x2a"
_VP8L_SIGNATURE = 0x2F


class UnsupportedImageError(InvalidImageError):
    """The image has a format that results cannot have."""


class _Header(io.RawIOBase):
    """A file that may be read so many times; what follows is no header."""

    def __init__(self, content: IO[bytes]) -> None:
        super().__init__()
        self._content, self._left = content, _MAX_READS

    def read(self, size: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0 or not 0 <= size <= _MAX_SEGMENT_BYTES:
            raise ValueError("the header does not end")
        return self._content.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._content.seek(offset, whence)


def read_image_header(content: IO[bytes]) -> ImageInfo:
    """Return MIME type, width and height. Raises InvalidImageError; UnsupportedImageError for other image formats."""
    content.seek(0)
    head = content.read(_HEAD_BYTES)
    mime = next((mime for magic, mime in _RESULTS if magic.match(head)), None)
    if mime is None:
        other = next((name for magic, name in _OTHERS if magic.match(head)), None)
        if other is not None:
            raise UnsupportedImageError(f"image format {other} is not supported")
        raise InvalidImageError("it is not an image")
    if mime == "image/webp":
        _check_webp(head, content.seek(0, io.SEEK_END))
    try:
        info = imagesize.get_info(_Header(content), dpi=False, colors=False, channels=False, exif_rotation=False)
    except (ValueError, TypeError, IndexError, OverflowError, OSError, struct.error):
        raise InvalidImageError("it is not an image") from None
    if info.width <= 0 or info.height <= 0:
        raise InvalidImageError("it is not an image")
    return ImageInfo(mime, info.width, info.height)


def _check_webp(head: bytes, size: int) -> None:
    """Raise InvalidImageError for a WebP that is incomplete, or whose first chunk is not that of an image."""
    declared = int.from_bytes(head[4:8], "little")
    # Encoders may leave out the last byte of padding.
    if declared + 8 > size + 1:
        raise InvalidImageError("the image is incomplete")
    name, body = head[12:16], head[20:30].ljust(10, b"\x00")
    is_image = (
        name == b"VP8X"
        or (name == b"VP8L" and body[0] == _VP8L_SIGNATURE)
        or (name == b"VP8 " and body[3:6] == _VP8_START)
    )
    if not is_image:
        raise InvalidImageError("it is not an image")
