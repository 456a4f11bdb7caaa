"""Limits and reasons of refusals that all work on images shares."""

from worker.core.media.image import MAX_INPUT_PIXELS
from worker.core.media.isolation.client import MEGABYTE

READABLE = "PNG, JPEG, WebP, HEIC, AVIF, GIF, BMP, TIFF, ICO or JPEG 2000"
# Reason given by a decoder -> what the caller reads.
REASONS = {
    "damaged": "the image is damaged or incomplete",
    "unknown": f"it is not a {READABLE} image",
    "pixels": f"it has more than {MAX_INPUT_PIXELS // 1_000_000} million pixels",
    "memory": "decoding it takes too much memory",
    "time": "decoding it takes too long",
    "raw": "it is a raw photo of a camera, of which only the preview can be read; export it as JPEG",
}
_LIBRARY_BYTES = 400 * MEGABYTE
# A decoded pixel takes four bytes; decoder, turned copy, alpha channel and encoder a few times that.
_BYTES_PER_PIXEL = 19
_MANY_PIXELS = 16_800_000  # 4096 x 4096


def memory_for(pixels: int) -> int:
    """Return the address space that an image of so many pixels may take."""
    return _LIBRARY_BYTES + min(pixels, MAX_INPUT_PIXELS) * _BYTES_PER_PIXEL


def weight_of(pixels: int) -> int:
    """Return the number of places that an image of so many pixels takes."""
    return 2 if pixels > _MANY_PIXELS else 1
