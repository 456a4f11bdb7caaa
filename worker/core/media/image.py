"""What a picture somebody gave us is, judged by its bytes alone: kind, pixels, whether it can be decoded.

Names, MIME types and sizes that came with the bytes are never believed.
"""

import threading
from dataclasses import dataclass
from typing import IO

from PIL import Image, UnidentifiedImageError

MAX_INPUT_BYTES = 100 * 1024 * 1024
MAX_INPUT_PIXELS = 64_000_000
# MPO is how phones write a JPEG with a second picture behind it; every reader shows the first.
_MIME_OF = {"PNG": "image/png", "JPEG": "image/jpeg", "MPO": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
_READERS = ("PNG", "JPEG", "WEBP", "GIF")
# A decoded picture takes four bytes a pixel; more than a few at once would be felt by everybody.
decoding = threading.Semaphore(2)


class NotAPictureError(Exception):
    """These bytes cannot be a reference picture. The message says why, fit for callers."""


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What the bytes say of themselves."""

    mime: str
    width: int
    height: int

    @property
    def extension(self) -> str:
        """How a file with these bytes is named at its end."""
        return self.mime.partition("/")[2]


def picture_facts(content: IO[bytes]) -> PictureFacts:
    """Kind and pixels of a picture that is whole. Raises NotAPictureError."""
    try:
        with decoding, Image.open(content, formats=_READERS) as picture:
            facts = PictureFacts(_MIME_OF[picture.format or ""], *picture.size)
            # Before anything is decoded: the header is enough to tell a bomb.
            if facts.width * facts.height > MAX_INPUT_PIXELS:
                raise NotAPictureError(_too_many_pixels())
            _decode(picture)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise NotAPictureError(_too_many_pixels()) from None
    except UnidentifiedImageError:
        raise NotAPictureError("it is not a PNG, JPEG, WebP or GIF picture") from None
    except (OSError, ValueError, SyntaxError, EOFError, KeyError):
        # What Pillow raises for broken files, each format its own.
        raise NotAPictureError("the picture is broken or cut off") from None
    return facts


def _decode(picture: Image.Image) -> None:
    """Find out that a file was cut, at the least cost: checksums of a PNG, a small draft of a JPEG."""
    if picture.format == "PNG":
        picture.verify()
        return
    picture.draft("RGB", (max(picture.width // 8, 1), max(picture.height // 8, 1)))
    picture.load()


def _too_many_pixels() -> str:
    return f"it has more than {MAX_INPUT_PIXELS // 1_000_000} million pixels"
