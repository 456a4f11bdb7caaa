"""Conversion of finished images: real formats, the same pixels, no foreign metadata."""

import io

import pytest
from PIL import Image, ImageCms

from worker.core.media.conversion import ConversionError, OutputFormat, conversion_work
from worker.core.media.isolation.client import run

SIZE = (64, 48)


def encode_image(mode: str = "RGB", image_format: str = "JPEG", **options) -> io.BytesIO:
    image = Image.merge("RGB", [Image.effect_noise(SIZE, 60) for _ in range(3)]).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(SIZE))
    content = io.BytesIO()
    image.save(content, image_format, **options)
    return content


def convert_bytes(content: io.BytesIO, image_format: str, compression: int | None = None) -> bytes:
    with run(conversion_work(content, OutputFormat(image_format, compression))) as result:
        result.seek(0)
        return result.read()


def open_image(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("source", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(("image_format", "name"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_all_formats_convert_to_all_formats(source, image_format, name):
    content = encode_image(image_format=source)
    image = open_image(convert_bytes(content, image_format))
    image.load()
    assert (image.format, image.size, image.mode) == (name, SIZE, "RGB")
    assert convert_bytes(content, image_format) == convert_bytes(content, image_format), "deterministic"


def test_png_conversion_is_lossless(tmp_path):
    content = encode_image()
    assert open_image(convert_bytes(content, "png")).tobytes() == Image.open(content).tobytes()


def test_transparency_is_kept_or_becomes_white():
    content = encode_image("RGBA", "PNG")
    assert open_image(convert_bytes(content, "png")).tobytes() == Image.open(content).tobytes()
    assert open_image(convert_bytes(content, "webp")).mode == "RGBA"
    transparent = io.BytesIO()
    Image.new("RGBA", SIZE, (255, 0, 0, 0)).save(transparent, "PNG")
    assert open_image(convert_bytes(transparent, "jpeg")).getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("mode", "image_format"), [("CMYK", "JPEG"), ("L", "PNG"), ("P", "PNG"), ("1", "PNG"), ("P", "GIF")]
)
def test_other_colour_modes_become_rgb(mode, image_format):
    assert open_image(convert_bytes(encode_image(mode, image_format), "webp")).mode == "RGB"


def test_lower_quality_gives_smaller_files():
    content = encode_image()
    for image_format in ("jpeg", "webp"):
        sizes = [len(convert_bytes(content, image_format, level)) for level in (0, 50, 100)]
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[2]
    assert len(convert_bytes(content, "jpeg")) == len(convert_bytes(content, "jpeg", 95))


def test_only_the_colour_profile_of_the_metadata_is_kept():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    exif[0x010E] = "a secret prompt"
    content = encode_image(icc_profile=profile, exif=exif, comment=b"a secret remark")
    for image_format in ("png", "jpeg", "webp"):
        data = convert_bytes(content, image_format)
        image = open_image(data)
        assert image.info["icc_profile"] == profile
        assert b"secret" not in data
        assert not image.getexif()
        assert image.size == SIZE[::-1], "stored upright"


@pytest.mark.parametrize(
    "data", [b"", b"<html>", encode_image().getvalue()[:300], encode_image(image_format="PNG").getvalue()[:300]]
)
def test_incomplete_image_is_not_converted(data):
    with pytest.raises(ConversionError):
        convert_bytes(io.BytesIO(data), "webp")


def test_decompression_bomb_is_refused_before_decoding():
    content = io.BytesIO()
    Image.new("1", (16000, 5000)).save(content, "PNG")
    with pytest.raises(ConversionError, match="million pixels"):
        convert_bytes(content, "jpeg")


def test_output_format_from_job_parameters():
    assert OutputFormat.from_params({}) is None
    assert OutputFormat.from_params({"output": {}}) is None
    output = OutputFormat("webp", 40)
    assert OutputFormat.from_params({"output": output.as_params()}) == output
    assert not output.accepts("image/webp")
    assert OutputFormat("webp").accepts("image/webp")
    assert not OutputFormat("png").accepts("image/jpeg")
