"""Converts and shrinks results of upstream. Runs only in a child process: `worker.core.media.isolation`."""

from typing import IO, Any

from PIL import Image, ImageOps

from worker.core.media.image import MAX_INPUT_PIXELS
from worker.core.media.isolation.protocol import UnusableFileError

# What upstream delivers: no other decoder sees its bytes.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
_THUMBNAIL_QUALITY = 80


def convert(source: IO[bytes], target: IO[bytes], *, output: str, options: dict[str, Any]) -> dict[str, Any]:
    """Write the image as `output` (Pillow's name) with the options of its encoder; the pixels stay the same.

    Only the colour profile is kept, as other metadata describes the original file. A rotated photo (EXIF orientation)
    is stored upright, as its orientation tag is removed.
    """
    with Image.open(source, formats=_FORMATS) as image:
        _check_pixels(image)
        profile = image.info.get("icc_profile") if image.mode != "CMYK" else None
        upright = _normalize_mode(ImageOps.exif_transpose(image), opaque=output == "JPEG")
        # Otherwise Pillow writes the metadata again.
        upright.info = {}
        upright.save(target, output, **options, **({"icc_profile": profile} if profile else {}))
    return {}


def make_thumbnail(source: IO[bytes], target: IO[bytes], *, side: int) -> dict[str, Any]:
    """Write a WebP with at most `side` pixels on its longer side. Pillow decodes a JPEG at a fraction of its size."""
    with Image.open(source, formats=_FORMATS) as image:
        _check_pixels(image)
        image.draft("RGB", (side, side))
        upright = ImageOps.exif_transpose(image)
        result = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
        result.thumbnail((side, side), reducing_gap=2.0)
        result.save(target, "WEBP", quality=_THUMBNAIL_QUALITY)
    return {}


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_INPUT_PIXELS:
        raise UnusableFileError("pixels")


def _normalize_mode(image: Image.Image, *, opaque: bool) -> Image.Image:
    """Return the image as RGB, or RGBA if it has transparency; `opaque` puts it on white instead."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image.convert("RGBA")
    if not opaque:
        return rgba
    background = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(background, rgba).convert("RGB")
