"""Reads format and size of an image from its header. No pixel is decoded, and only a few bytes are read."""

import io
import struct
from typing import IO

from PIL import Image, UnidentifiedImageError

from worker.core.media.image import ImageInfo, InvalidImageError

_MIME_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
_VP8_START = b"\x9d\x01\x2a"
_VP8L_SIGNATURE = 0x2F
_WEBP_HEADER_BYTES = 30


class UnsupportedImageError(InvalidImageError):
    """The image has a format that results cannot have."""


def read_image_header(content: IO[bytes]) -> ImageInfo:
    """Return MIME type, width and height. Raises InvalidImageError; UnsupportedImageError for other image formats.

    Pillow opens a JPEG, PNG or GIF without decoding it. For a WebP it reads the whole file and prepares the decoder, so
    the header of a WebP is read here.
    """
    content.seek(0)
    head = content.read(_WEBP_HEADER_BYTES)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp_info(head, content.seek(0, io.SEEK_END))
    try:
        with Image.open(content) as image:
            mime = _MIME_TYPES.get(image.format or "")
            if mime is None:
                raise UnsupportedImageError(f"image format {image.format} is not supported")
            return ImageInfo(mime, *image.size)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise InvalidImageError("it is not an image") from error


def _webp_info(head: bytes, size: int) -> ImageInfo:
    """Read the first chunk: lossy, lossless, or extended (alpha, animation or metadata)."""
    declared = int.from_bytes(head[4:8], "little")
    # Encoders may leave out the last byte of padding.
    if declared + 8 > size + 1:
        raise InvalidImageError("the image is incomplete")
    head = head.ljust(_WEBP_HEADER_BYTES, b"\x00")
    name, body = head[12:16], head[20:]
    if name == b"VP8X":
        width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
    elif name == b"VP8L" and body[0] == _VP8L_SIGNATURE:
        bits = int.from_bytes(body[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif name == b"VP8 " and body[3:6] == _VP8_START:
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", body[6:10]))
    else:
        raise InvalidImageError("it is not an image")
    if not (width and height):
        raise InvalidImageError("it is not an image")
    return ImageInfo("image/webp", width, height)
