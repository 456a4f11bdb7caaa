"""Converts a finished image into the format that the caller requested, in a child process. The pixels stay the same."""

from dataclasses import dataclass
from typing import IO, Any

from worker.core.media.image import MAX_INPUT_PIXELS, InvalidImageError
from worker.core.media.image_header import read_image_header
from worker.core.media.isolation.client import Limits, Work, on_disk
from worker.core.media.isolation.image_work import REASONS, memory_for, weight_of
from worker.core.media.isolation.protocol import IMAGES

# Format that callers request -> Pillow's name.
FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
# High quality: above 95 a JPEG grows without a visible difference.
DEFAULT_QUALITY = 95
_MIME_OF = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
_CPU_SECONDS, _WALL_SECONDS = 60, 120


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


def conversion_work(content: IO[bytes], output: OutputFormat) -> Work[IO[bytes]]:
    """Return the work that converts an image to a temporary file, which disappears when closed.

    Raises ConversionError, as the work does. The result is deterministic.
    """
    try:
        info = read_image_header(content)
    except InvalidImageError as error:
        raise ConversionError(str(error)) from error
    pixels = info.width * info.height
    if pixels > MAX_INPUT_PIXELS:
        raise ConversionError(REASONS["pixels"])
    return Work(
        IMAGES,
        "convert",
        on_disk(content),
        Limits(memory_for(pixels), _CPU_SECONDS, _WALL_SECONDS),
        lambda _report, result: result,
        lambda reason: ConversionError(REASONS.get(reason, REASONS["damaged"])),
        {"output": FORMATS[output.format], "options": _options(output)},
        weight_of(pixels),
    )


def _options(output: OutputFormat) -> dict[str, Any]:
    if output.format == "png":
        # Lossless at every level; above 3 it takes twice the time to save a few percent.
        return {"compress_level": 3}
    quality = DEFAULT_QUALITY if output.compression is None else output.compression
    if output.format == "webp":
        return {"quality": quality, "method": 4}
    return {"quality": max(quality, 1), "optimize": False}
