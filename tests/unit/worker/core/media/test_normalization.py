"""Photos become upright, free of private metadata, and a type that upstream takes; other pictures stay as they are."""

import io
from typing import Any

import pillow_heif
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from worker.core.media.image import InvalidImageError
from worker.core.media.normalization import NormalizedImage, normalize_image

pillow_heif.register_heif_opener()

SECRET = "51.5007 secret place"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SIZE = (64, 36)
# What a camera stores for each orientation so that the upright picture is red with a blue top left corner.
_STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def picture(size: tuple[int, int] = SIZE) -> Image.Image:
    image = Image.new("RGB", size, "red")
    image.paste("blue", (0, 0, size[0] // 2, size[1] // 2))
    return image


def encode(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    out = io.BytesIO()
    (image or picture()).save(out, kind, **options)
    return out.getvalue()


def exif(orientation: int = 1) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112], tags[0x010E] = orientation, SECRET
    tags.get_ifd(0x8825)[1] = "N"
    return tags


def normalize(data: bytes) -> tuple[NormalizedImage, bytes]:
    image = normalize_image(io.BytesIO(data))
    with image.content:
        image.content.seek(0)
        return image, image.content.read()


def corner_is_blue(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        rgb = image.convert("RGB")
        colours = [rgb.getpixel((3, 3)), rgb.getpixel((rgb.width - 4, 3)), rgb.getpixel((3, rgb.height - 4))]
    return [colour[2] > colour[0] for colour in colours] == [True, False, False]  # type: ignore[index]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photo_of_any_orientation_is_turned_upright_and_keeps_no_metadata(kind: str, orientation: int) -> None:
    turn = _STORED[orientation]
    stored = picture() if turn is None else picture().transpose(turn)
    image, data = normalize(encode(kind, stored, exif=exif(orientation)))
    assert (image.info.width, image.info.height) == SIZE
    assert corner_is_blue(data)
    with Image.open(io.BytesIO(data)) as read:
        assert (read.size, dict(read.getexif())) == (SIZE, {})
        assert read.format in {"JPEG", "PNG", "WEBP"}
    assert SECRET.encode() not in data
    assert ("turned" in image.adjusted) == (orientation != 1)
    assert image.adjusted["metadata"] == "removed"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_clean_upright_picture_stays_byte_for_byte(kind: str) -> None:
    sent = encode(kind, icc_profile=SRGB)
    image, data = normalize(sent)
    assert (data, image.adjusted) == (sent, {})


@pytest.mark.parametrize(
    "sent",
    [
        encode("JPEG", exif=exif(), quality=30),
        encode("JPEG", comment=SECRET, quality=30),
        encode("JPEG", xmp=f"<x:xmpmeta>{SECRET}</x:xmpmeta>".encode(), quality=30),
        encode("JPEG", quality=30) + b"\x00\x00\x00\x18ftypmp42" + SECRET.encode(),
        encode("PNG", exif=exif()),
        encode("PNG", exif=exif()) + SECRET.encode(),
        encode("WEBP", exif=exif(), lossless=True),
        encode("WEBP", xmp=SECRET.encode(), lossless=True),
    ],
)
def test_metadata_is_cut_out_without_changing_a_pixel(sent: bytes) -> None:
    image, data = normalize(sent)
    assert image.adjusted == {"metadata": "removed"}
    assert SECRET.encode() not in data
    with Image.open(io.BytesIO(sent)) as before, Image.open(io.BytesIO(data)) as after:
        assert before.format == after.format
        assert before.tobytes() == after.tobytes()


@pytest.mark.parametrize("key", ["Comment", "parameters", "XML:com.adobe.xmp"])
def test_texts_of_a_png_are_removed(key: str) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt(key, SECRET) if "xmp" in key else info.add_text(key, SECRET, zip=key == "parameters")
    _, data = normalize(encode("PNG", pnginfo=info))
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.info == {}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_colour_profile_is_kept(kind: str, orientation: int) -> None:
    _, data = normalize(encode(kind, icc_profile=SRGB, exif=exif(orientation)))
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["icc_profile"] == SRGB


@pytest.mark.parametrize(
    ("kind", "mime"),
    [
        *(("HEIF", "image/heic"), ("AVIF", "image/avif"), ("BMP", "image/bmp"), ("TIFF", "image/tiff")),
        *(("GIF", "image/gif"), ("ICO", "image/x-icon"), ("JPEG2000", "image/jp2"), ("PPM", "image/ppm")),
    ],
)
def test_other_file_types_are_converted_and_reported(kind: str, mime: str) -> None:
    side = (64, 64) if kind == "ICO" else SIZE
    image, data = normalize(encode(kind, picture(side)))
    assert (image.adjusted["converted_from"], image.info.mime, corner_is_blue(data)) == (mime, "image/jpeg", True)


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "HEIF", "AVIF", "ICO"])
def test_transparency_is_kept_as_png(kind: str) -> None:
    image = picture((64, 64)).convert("RGBA")
    image.paste((0, 0, 0, 0), (40, 40, 60, 60))
    found, data = normalize(encode(kind, image))
    assert found.info.mime == "image/png"
    with Image.open(io.BytesIO(data)) as read:
        assert read.convert("RGBA").getpixel((50, 50))[3] == 0  # type: ignore[index]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation_is_used_and_reported(kind: str) -> None:
    image, data = normalize(encode(kind, save_all=True, append_images=[Image.new("RGB", SIZE, "green")]))
    assert image.adjusted["frames"] == "first"
    assert corner_is_blue(data)
    with Image.open(io.BytesIO(data)) as read:
        assert not getattr(read, "is_animated", False)


# Only the modes that each format can store.
STORABLE_MODES = [
    *(("TIFF", mode) for mode in ("CMYK", "L", "1", "P", "LA", "I;16", "LAB")),
    *(("JPEG", mode) for mode in ("CMYK", "L", "1")),
    *(("PNG", mode) for mode in ("L", "1", "P", "LA", "I;16")),
]


@pytest.mark.parametrize(("kind", "mode"), STORABLE_MODES)
def test_unusual_colour_models_become_usable(kind: str, mode: str) -> None:
    image = Image.new("I;16", SIZE, 40_000) if mode == "I;16" else Image.new("L", SIZE, 155).convert("RGB")
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")  # type: ignore[assignment]
    sent = encode(kind, image if mode in {"I;16", "LAB"} else image.convert(mode))
    _, data = normalize(sent)
    with Image.open(io.BytesIO(data)) as read:
        assert read.mode in {"RGB", "RGBA", "L", "LA", "1", "P", "I;16"}


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("lost", [1, 2, 3, 9])
@pytest.mark.parametrize("size", [(640, 360), (33, 17)])
def test_jpeg_without_its_last_bytes_is_accepted(*, progressive: bool, lost: int, size: tuple[int, int]) -> None:
    whole = encode("JPEG", Image.effect_noise(size, 60).convert("RGB"), progressive=progressive)
    image, data = normalize(whole[:-lost])
    assert image.adjusted == {"repaired": "the end of the file was missing"}
    assert (image.info.width, image.info.height) == size
    with Image.open(io.BytesIO(whole)) as sent, Image.open(io.BytesIO(data)) as read:
        above = (0, 0, size[0], max(size[1] - 32, 1))
        pairs = zip(sent.crop(above).tobytes(), read.crop(above).tobytes(), strict=True)
        assert max(abs(one - other) for one, other in pairs) < 40


@pytest.mark.parametrize("progressive", [False, True])
def test_half_a_jpeg_is_refused(*, progressive: bool) -> None:
    whole = encode("JPEG", Image.effect_noise((640, 360), 60).convert("RGB"), progressive=progressive)
    with pytest.raises(InvalidImageError, match="incomplete"):
        normalize(whole[: len(whole) // 2])


def test_raw_photo_is_refused_rather_than_replaced_by_its_preview() -> None:
    tags = Image.Exif()
    tags[50706] = b"\x01\x04\x00\x00"
    with pytest.raises(InvalidImageError, match="raw photo"):
        normalize(encode("TIFF", exif=tags))
