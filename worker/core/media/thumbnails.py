"""A small copy of a picture, for pages that show many. Pillow decodes a JPEG at a fraction of its size."""

import io

from PIL import Image, ImageOps

from worker.core.media.image import MAX_INPUT_PIXELS, NotAPictureError, decoding

_READERS = ("PNG", "JPEG", "WEBP", "GIF")
_QUALITY = 80


def thumbnail(content: bytes, *, side: int) -> bytes:
    """A WebP whose longer side has `side` pixels at most. Raises NotAPictureError."""
    try:
        with decoding, Image.open(io.BytesIO(content), formats=_READERS) as picture:
            return _shrunk(picture, side)
    except (OSError, ValueError, SyntaxError, EOFError, KeyError, Image.DecompressionBombError):
        # What Pillow raises for broken files, each format its own.
        raise NotAPictureError("the picture is broken or cut off") from None


def _shrunk(picture: Image.Image, side: int) -> bytes:
    if picture.width * picture.height > MAX_INPUT_PIXELS:
        raise NotAPictureError("it has too many pixels")
    picture.draft("RGB", (side, side))
    turned = ImageOps.exif_transpose(picture)
    shown = turned.convert("RGBA" if turned.has_transparency_data else "RGB")
    shown.thumbnail((side, side), reducing_gap=2.0)
    small = io.BytesIO()
    shown.save(small, "WEBP", quality=_QUALITY)
    return small.getvalue()
