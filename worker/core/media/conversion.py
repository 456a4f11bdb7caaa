"""Turn a finished picture into the format its caller asked for. Pillow does the work; the pixels stay what they are.

Only the colour profile is carried over: the rest of the metadata speaks of a file that is not this one. A turned photo
(EXIF orientation) is written the way it is meant to be seen, since the note that says so is left out.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from PIL import Image, ImageOps, UnidentifiedImageError

from worker.core.media.image import MAX_INPUT_PIXELS, decoding

# What callers may ask for, and what Pillow calls it.
FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
# Without a wish: little loss. Above 95 a JPEG grows without looking better.
USUAL_QUALITY = 95
_MIME_OF = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
_SPOOL_BYTES = 8 * 1024 * 1024
_TURN_SECONDS = 5.0


class NotConvertedError(Exception):
    """This picture cannot be written in the wanted format. The message says why."""


@dataclass(frozen=True, slots=True)
class Output:
    """The file a caller wants: `format` png, jpeg or webp; `compression` 0..100 as OpenAI counts it, 100 = best."""

    format: str
    compression: int | None = None

    @classmethod
    def of(cls, params: dict[str, Any]) -> "Output | None":
        """What the parameters of a job ask for; None = as upstream gives it."""
        wanted = params.get("output") or {}
        return cls(wanted["format"], wanted.get("compression")) if wanted.get("format") in FORMATS else None

    def as_params(self) -> dict[str, Any]:
        """The same as a job's parameters carry it."""
        return {"format": self.format, "compression": self.compression}

    def is_met_by(self, mime: str) -> bool:
        """Whether bytes of this type may stay as they are."""
        return self.compression is None and mime == _MIME_OF[self.format]


def convert(content: IO[bytes], output: Output, *, while_waiting: Callable[[], object]) -> IO[bytes]:
    """The picture in the wanted format, in a temporary file that vanishes when closed. Raises NotConvertedError.

    The same bytes and the same wish give the same bytes again. Few are made at once; `while_waiting` is called every
    few seconds until it is this one's turn.
    """
    made: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - the caller closes it
    try:
        with _turn(while_waiting), Image.open(content) as picture:
            _check_pixels(picture)
            _write(picture, made, output)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError, EOFError) as error:
        # What Pillow raises for broken files, each format its own.
        made.close()
        raise NotConvertedError(f"{type(error).__name__}: {error}") from error
    except BaseException:
        made.close()
        raise
    return made


@contextlib.contextmanager
def _turn(while_waiting: Callable[[], object]) -> Iterator[None]:
    while not decoding.acquire(timeout=_TURN_SECONDS):
        while_waiting()
    try:
        yield
    finally:
        decoding.release()


def _check_pixels(picture: Image.Image) -> None:
    if picture.width * picture.height > MAX_INPUT_PIXELS:
        raise NotConvertedError("it has too many pixels")


def _write(picture: Image.Image, made: IO[bytes], output: Output) -> None:
    profile = picture.info.get("icc_profile") if picture.mode != "CMYK" else None
    upright = _plain(ImageOps.exif_transpose(picture), opaque=output.format == "jpeg")
    # What Pillow would write out again by itself.
    upright.info = {}
    upright.save(made, FORMATS[output.format], **_options(output), **({"icc_profile": profile} if profile else {}))


def _plain(picture: Image.Image, *, opaque: bool) -> Image.Image:
    """RGB, or RGBA where something shows through; on white for formats that know no transparency."""
    if not picture.has_transparency_data:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    full = picture.convert("RGBA")
    if not opaque:
        return full
    ground = Image.new("RGBA", full.size, "white")
    return Image.alpha_composite(ground, full).convert("RGB")


def _options(output: Output) -> dict[str, Any]:
    if output.format == "png":
        # Lossless at any level; above 3 it takes twice the time for a few percent.
        return {"compress_level": 3}
    quality = USUAL_QUALITY if output.compression is None else output.compression
    if output.format == "webp":
        return {"quality": quality, "method": 4}
    return {"quality": max(quality, 1), "optimize": False}
