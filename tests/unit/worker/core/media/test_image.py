"""Images as callers send them: recognised by their bytes, incomplete files and decompression bombs are refused."""

import io
import struct
import time
import zlib

import pytest
from PIL import Image

from worker.core.media.image import MAX_INPUT_PIXELS, ImageInfo, InvalidImageError
from worker.core.media.normalization import normalize_image


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


def inspect(data: bytes) -> ImageInfo:
    image = normalize_image(io.BytesIO(data))
    with image.content:
        return image.info


@pytest.mark.parametrize(("kind", "mime"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_format_and_size_are_read_from_the_bytes(kind: str, mime: str, mode: str) -> None:
    assert inspect(encode_image(kind, mode=mode)) == ImageInfo(mime, 32, 32)


def test_mpo_counts_as_jpeg_and_loses_its_second_image() -> None:
    out = io.BytesIO()
    first, second = (Image.new("RGB", (9, 7), color) for color in ("red", "blue"))
    first.save(out, "MPO", save_all=True, append_images=[second])
    image = normalize_image(out)
    with image.content:
        assert image.info == ImageInfo("image/jpeg", 9, 7)
        with Image.open(image.content) as read:
            assert (read.format, getattr(read, "n_frames", 1)) == ("JPEG", 1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_incomplete_image_is_refused(kind: str, part: float) -> None:
    whole = encode_image(kind, side=256)
    with pytest.raises(InvalidImageError):
        inspect(whole[: int(len(whole) * part)])


def test_damaged_png_is_refused_by_its_checksum() -> None:
    data = bytearray(encode_image("PNG", side=256))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(InvalidImageError, match="damaged"):
        inspect(bytes(data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"x", "not a PNG"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (b"%PDF-1.7", "PDF"),
        (b"\x00\x00\x00 ftypisom", "video"),
        (b'{"error": "no"}', "JSON"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"\xff\xd8\xff", "damaged"),
        (b"RIFF\x04\x00\x00\x00WEBP", "damaged"),
        (b"GIF89a", "not a PNG"),
    ],
)
def test_other_files_are_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidImageError, match=reason):
        inspect(data)


@pytest.mark.parametrize("side", [8001, 12_000, 60_000])
def test_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    assert side * side > MAX_INPUT_PIXELS
    with pytest.raises(InvalidImageError, match="million pixels"):
        inspect(bomb(side, side))


def png_of_tiny_chunks() -> bytes:
    whole = encode_image("PNG")
    chunk = struct.pack(">I4sI", 0, b"tEXt", zlib.crc32(b"tEXt"))
    return whole[:33] + chunk * 800_000 + whole[33:]


@pytest.mark.parametrize(
    "data",
    [
        png_of_tiny_chunks(),
        b"\xff\xd8" + b"\xff" * 8_000_000,
        b"\xff\xd8" + b"\xff\xfe\x00\x02" * 2_000_000,
        b"RIFF" + struct.pack("<I", 8_000_004) + b"WEBP" + b"XXXX\0\0\0\0" * 1_000_000,
        b"<!-- -->" * 250 + b"<x",
    ],
)
def test_file_of_countless_parts_is_refused_at_once(data: bytes) -> None:
    started = time.process_time()
    with pytest.raises(InvalidImageError):
        inspect(data)
    # Reading all parts takes ten seconds or more.
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "data",
    [
        encode_image("PNG")[:33] + b"\0\0\0\0IEND\xaeB`\x82",
        b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X\x0a\0\0\0" + b"\0" * 4 + b"\x07\0\0\x07\0\0",
        b"\xff\xd8\xff\xdb\x00\x04ab\xff\xd9",
    ],
)
def test_file_without_pixels_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidImageError, match="damaged"):
        inspect(data)
