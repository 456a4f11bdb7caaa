"""Inspection of image bytes: incomplete files and decompression bombs are refused."""

import io
import struct
import zlib

import pytest
from PIL import Image

from worker.core.media.image import MAX_INPUT_PIXELS, ImageInfo, InvalidImageError, inspect_image


def encode_image(kind: str, *, side: int = 32, mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.effect_noise((side, side), 80).convert(mode).save(out, kind)
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes that declares this size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("kind", "mime"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/gif")]
)
def test_format_is_detected_from_bytes(kind: str, mime: str) -> None:
    assert inspect_image(io.BytesIO(encode_image(kind))) == ImageInfo(mime, 32, 32)


def test_mpo_counts_as_jpeg() -> None:
    out = io.BytesIO()
    first, second = (Image.new("RGB", (9, 7), color) for color in ("red", "blue"))
    first.save(out, "MPO", save_all=True, append_images=[second])
    assert inspect_image(out) == ImageInfo("image/jpeg", 9, 7)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_incomplete_image_is_refused(kind: str, part: float) -> None:
    whole = encode_image(kind, side=256)
    with pytest.raises(InvalidImageError):
        inspect_image(io.BytesIO(whole[: int(len(whole) * part)]))


@pytest.mark.parametrize(
    "data", [b"", b"x", b"<html></html>", b"\x89PNG\r\n\x1a\n", b"GIF89a", encode_image("BMP"), encode_image("TIFF")]
)
def test_other_formats_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidImageError):
        inspect_image(io.BytesIO(data))


@pytest.mark.parametrize("side", [8001, 12_000, 60_000])
def test_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    assert side * side > MAX_INPUT_PIXELS
    with pytest.raises(InvalidImageError, match="million pixels"):
        inspect_image(io.BytesIO(bomb(side, side)))
