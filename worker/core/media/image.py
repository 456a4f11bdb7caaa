"""Inspects image files by their bytes: format, pixels, and whether they can be decoded.

File names, MIME types and sizes declared by clients are ignored.
"""

import threading
from dataclasses import dataclass
from typing import IO

from PIL import Image, UnidentifiedImageError

MAX_INPUT_BYTES = 100 * 1024 * 1024
MAX_INPUT_PIXELS = 64_000_000
# MPO is a JPEG with a second image, written by phones; readers show the first one.
_MIME_OF = {"PNG": "image/png", "JPEG": "image/jpeg", "MPO": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
_READERS = ("PNG", "JPEG", "WEBP", "GIF")
# A decoded image takes four bytes per pixel, so only a few are decoded at once.
decode_slots = threading.Semaphore(2)


class InvalidImageError(Exception):
    """The bytes are not a usable image. The message is a reason for API callers."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Format and size of an image."""

    mime: str
    width: int
    height: int

    @property
    def extension(self) -> str:
        """File name extension without the dot."""
        return self.mime.partition("/")[2]


def inspect_image(content: IO[bytes]) -> ImageInfo:
    """Return format and size of a complete image. Raises InvalidImageError."""
    try:
        with decode_slots, Image.open(content, formats=_READERS) as image:
            info = ImageInfo(_MIME_OF[image.format or ""], *image.size)
            # Checked before decoding: the header is enough to detect a decompression bomb.
            if info.width * info.height > MAX_INPUT_PIXELS:
                raise InvalidImageError(_too_many_pixels())
            _decode(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidImageError(_too_many_pixels()) from None
    except UnidentifiedImageError:
        raise InvalidImageError("it is not a PNG, JPEG, WebP or GIF image") from None
    except (OSError, ValueError, SyntaxError, EOFError, KeyError):
        # Pillow raises different errors for damaged files of each format.
        raise InvalidImageError("the image is damaged or incomplete") from None
    return info


def _decode(image: Image.Image) -> None:
    """Detect incomplete files at low cost: by the checksums of a PNG or a small draft of a JPEG."""
    if image.format == "PNG":
        image.verify()
        return
    image.draft("RGB", (max(image.width // 8, 1), max(image.height // 8, 1)))
    image.load()


def _too_many_pixels() -> str:
    return f"it has more than {MAX_INPUT_PIXELS // 1_000_000} million pixels"
