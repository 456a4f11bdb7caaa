"""Creates small copies of images for pages that show many. Pillow decodes a JPEG at a fraction of its size."""

import io

from PIL import Image, ImageOps

from worker.core.media.image import MAX_INPUT_PIXELS, InvalidImageError, decode_slots

_READERS = ("PNG", "JPEG", "WEBP", "GIF")
_QUALITY = 80


def make_thumbnail(content: bytes, *, side: int) -> bytes:
    """Return a WebP with at most `side` pixels on its longer side. Raises InvalidImageError."""
    try:
        with decode_slots, Image.open(io.BytesIO(content), formats=_READERS) as image:
            return _shrink(image, side)
    except (OSError, ValueError, SyntaxError, EOFError, KeyError, Image.DecompressionBombError):
        # Pillow raises different errors for damaged files of each format.
        raise InvalidImageError("the image is damaged or incomplete") from None


def _shrink(image: Image.Image, side: int) -> bytes:
    if image.width * image.height > MAX_INPUT_PIXELS:
        raise InvalidImageError("it has too many pixels")
    image.draft("RGB", (side, side))
    upright = ImageOps.exif_transpose(image)
    result = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    result.thumbnail((side, side), reducing_gap=2.0)
    small = io.BytesIO()
    result.save(small, "WEBP", quality=_QUALITY)
    return small.getvalue()
