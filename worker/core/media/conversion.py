"""Converts a finished image into the format that the caller requested. Pillow does the work; the pixels stay the same.

Only the colour profile is kept, as other metadata describes the original file. A rotated photo (EXIF orientation) is
stored upright, as its orientation tag is removed.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from PIL import Image, ImageOps, UnidentifiedImageError

from worker.core.media.image import MAX_INPUT_PIXELS, decode_slots

# Format that callers request -> Pillow's name.
FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
# High quality: above 95 a JPEG grows without a visible difference.
DEFAULT_QUALITY = 95
_MIME_OF = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
_SPOOL_BYTES = 8 * 1024 * 1024
_WAIT_SECONDS = 5.0


class ConversionError(Exception):
    """The image cannot be converted. The message is the reason."""


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """The requested format: png, jpeg or webp; `compression` 0..100 as in OpenAI's API, 100 = best quality."""

    format: str
    compression: int | None = None

    @classmethod
    def from_params(cls, params: dict[str, Any]) -> "OutputFormat | None":
        """Read the format from a job's parameters; None = keep upstream's format."""
        output = params.get("output") or {}
        return cls(output["format"], output.get("compression")) if output.get("format") in FORMATS else None

    def as_params(self) -> dict[str, Any]:
        """Return the format as stored in a job's parameters."""
        return {"format": self.format, "compression": self.compression}

    def accepts(self, mime: str) -> bool:
        """Return whether a file of this type needs no conversion."""
        return self.compression is None and mime == _MIME_OF[self.format]


def convert(content: IO[bytes], output: OutputFormat, *, while_waiting: Callable[[], object]) -> IO[bytes]:
    """Convert an image; returns a temporary file that disappears when closed. Raises ConversionError.

    The result is deterministic. Only a few conversions run at once; `while_waiting` is called every few seconds until
    this one starts.
    """
    result: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - the caller closes it
    try:
        with _decode_slot(while_waiting), Image.open(content) as image:
            _check_pixels(image)
            _write(image, result, output)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError, EOFError) as error:
        # Pillow raises different errors for damaged files of each format.
        result.close()
        raise ConversionError(f"{type(error).__name__}: {error}") from error
    except BaseException:
        result.close()
        raise
    return result


@contextlib.contextmanager
def _decode_slot(while_waiting: Callable[[], object]) -> Iterator[None]:
    while not decode_slots.acquire(timeout=_WAIT_SECONDS):
        while_waiting()
    try:
        yield
    finally:
        decode_slots.release()


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_INPUT_PIXELS:
        raise ConversionError("it has too many pixels")


def _write(image: Image.Image, result: IO[bytes], output: OutputFormat) -> None:
    profile = image.info.get("icc_profile") if image.mode != "CMYK" else None
    upright = _normalize_mode(ImageOps.exif_transpose(image), opaque=output.format == "jpeg")
    # Otherwise Pillow writes the metadata again.
    upright.info = {}
    upright.save(result, FORMATS[output.format], **_options(output), **({"icc_profile": profile} if profile else {}))


def _normalize_mode(image: Image.Image, *, opaque: bool) -> Image.Image:
    """Return the image as RGB, or RGBA if it has transparency; `opaque` puts it on white instead."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image.convert("RGBA")
    if not opaque:
        return rgba
    background = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(background, rgba).convert("RGB")


def _options(output: OutputFormat) -> dict[str, Any]:
    if output.format == "png":
        # Lossless at every level; above 3 it takes twice the time to save a few percent.
        return {"compress_level": 3}
    quality = DEFAULT_QUALITY if output.compression is None else output.compression
    if output.format == "webp":
        return {"quality": quality, "method": 4}
    return {"quality": max(quality, 1), "optimize": False}
