"""Format and size of a result are read from its header, as decoding only for the size costs time and memory."""

import io

import pytest
from PIL import Image

from worker.core.media.image import InvalidImageError
from worker.core.media.image_header import UnsupportedImageError, read_image_header


def encode(image_format: str, size: tuple[int, int] = (41, 23), mode: str = "RGB", **options) -> bytes:
    content = io.BytesIO()
    Image.new(mode, size, 77).save(content, image_format, **options)
    return content.getvalue()


def header(data: bytes) -> tuple[str, int, int]:
    info = read_image_header(io.BytesIO(data))
    return info.mime, info.width, info.height


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF"])
def test_header_has_format_and_size(image_format):
    assert header(encode(image_format)) == (f"image/{image_format.lower()}", 41, 23)


@pytest.mark.parametrize("size", [(1, 1), (2048, 2048), (4096, 4096), (16383, 3), (5404, 3040)])
@pytest.mark.parametrize(
    "options",
    [
        {"quality": 1, "method": 0},
        {"lossless": True, "quality": 0, "method": 0},
        {"quality": 1, "method": 0, "exif": b"Exif\0\0II*\0"},
    ],
)
def test_every_webp_form_has_its_size(size, options):
    assert header(encode("WEBP", size, **options)) == ("image/webp", *size)


def test_webp_with_alpha_and_animation_has_its_size():
    assert header(encode("WEBP", mode="RGBA")) == ("image/webp", 41, 23)
    frames = [Image.new("RGB", (41, 23), colour) for colour in ("red", "blue")]
    content = io.BytesIO()
    frames[0].save(content, "WEBP", save_all=True, append_images=frames[1:])
    assert header(content.getvalue()) == ("image/webp", 41, 23)


class CountedBytes(io.BytesIO):
    """Counts the bytes that are read."""

    count = 0

    def read(self, size=-1, /):
        data = super().read(size)
        self.count += len(data)
        return data


@pytest.mark.parametrize("image_format", ["WEBP", "PNG", "JPEG"])
def test_only_the_header_is_read(image_format):
    content = CountedBytes(encode(image_format, (2048, 2048)))
    info = read_image_header(content)
    assert (info.width, info.height) == (2048, 2048)
    assert content.count < 4096 < len(content.getvalue())


@pytest.mark.parametrize("filler", [b"\x00", b"\xff", b"\xff\xe1\x00\x04ab", b"\xff\xd0"])
def test_endless_header_is_not_read_to_its_end(filler):
    content = CountedBytes(b"\xff\xd8\xff" + filler * 2_000_000)
    with pytest.raises(InvalidImageError):
        read_image_header(content)
    assert content.count < 200_000


@pytest.mark.parametrize(
    "data",
    [
        b"", b"<html>please wait</html>", b"RIFF", encode("WEBP")[:-20], encode("WEBP")[:16], encode("PNG")[:20],
        b"RIFF\x16\x00\x00\x00WEBPVP8 \x0a\x00\x00\x00" + b"\x00" * 10,
    ],
)  # fmt: skip
def test_other_bytes_are_not_an_image(data):
    with pytest.raises(InvalidImageError) as caught:
        read_image_header(io.BytesIO(data))
    assert not isinstance(caught.value, UnsupportedImageError)


@pytest.mark.parametrize("image_format", ["BMP", "TIFF", "ICO"])
def test_format_that_results_cannot_have_is_named(image_format):
    with pytest.raises(UnsupportedImageError, match=image_format):
        read_image_header(io.BytesIO(encode(image_format)))
