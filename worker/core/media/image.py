"""Limits and types that the image modules share. File names, MIME types and sizes declared by clients are ignored."""

from dataclasses import dataclass

MAX_INPUT_BYTES = 100 * 1024 * 1024
MAX_INPUT_PIXELS = 64_000_000


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


def check_pixels(width: int, height: int) -> None:
    """Raise InvalidImageError for a size that is empty or too large to decode."""
    if width <= 0 or height <= 0:
        raise damaged_image()
    if width * height > MAX_INPUT_PIXELS:
        raise InvalidImageError(f"it has more than {MAX_INPUT_PIXELS // 1_000_000} million pixels")


def damaged_image() -> InvalidImageError:
    """Return the error of a file that cannot be decoded."""
    return InvalidImageError("the image is damaged or incomplete")
