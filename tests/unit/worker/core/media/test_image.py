"""What counts as a picture: the bytes decide, cut ones and bombs are refused."""

import io
import struct
import zlib

import pytest
from PIL import Image

from worker.core.media.image import MAX_INPUT_PIXELS, NotAPictureError, PictureFacts, picture_facts


def drawn(kind: str, *, side: int = 32, mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.effect_noise((side, side), 80).convert(mode).save(out, kind)
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is that large."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("kind", "mime"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/gif")]
)
def test_kinds_by_their_bytes(kind: str, mime: str) -> None:
    assert picture_facts(io.BytesIO(drawn(kind))) == PictureFacts(mime, 32, 32)


def test_what_a_phone_takes_for_a_jpeg_is_one() -> None:
    out = io.BytesIO()
    first, second = (Image.new("RGB", (9, 7), color) for color in ("red", "blue"))
    first.save(out, "MPO", save_all=True, append_images=[second])
    assert picture_facts(out) == PictureFacts("image/jpeg", 9, 7)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_cut_picture_is_none(kind: str, part: float) -> None:
    whole = drawn(kind, side=256)
    with pytest.raises(NotAPictureError):
        picture_facts(io.BytesIO(whole[: int(len(whole) * part)]))


@pytest.mark.parametrize(
    "data", [b"", b"x", b"<html></html>", b"\x89PNG\r\n\x1a\n", b"GIF89a", drawn("BMP"), drawn("TIFF")]
)
def test_anything_else_is_none(data: bytes) -> None:
    with pytest.raises(NotAPictureError):
        picture_facts(io.BytesIO(data))


@pytest.mark.parametrize("side", [8001, 12_000, 60_000])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    assert side * side > MAX_INPUT_PIXELS
    with pytest.raises(NotAPictureError, match="million pixels"):
        picture_facts(io.BytesIO(bomb(side, side)))
