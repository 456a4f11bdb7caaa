"""Makes an image of a caller ready for upstream: upright, without private metadata, as PNG, JPEG or WebP.

A file that is already so stays as it is. Metadata alone is cut out without decoding, so the pixels stay the same. A
turned, foreign or incomplete file is decoded in a child process, and so is one of unusual size or structure.
"""

import io
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from worker.core.media.image import MAX_INPUT_PIXELS, ImageInfo, InvalidImageError
from worker.core.media.image_structure import FEW_PARTS, ImageStructure, TooManyPartsError, copy_parts, read_structure
from worker.core.media.isolation.client import Limits, Work, bounded, on_disk, run
from worker.core.media.isolation.image_work import READABLE, REASONS, memory_for, weight_of
from worker.core.media.isolation.protocol import IMAGES

_SPOOL_BYTES = 8 * 1024 * 1024
_ACCEPTED = {"PNG": "image/png", "JPEG": "image/jpeg", "MPO": "image/jpeg", "WEBP": "image/webp"}
_MIME_OF = {
    "HEIF": "image/heic",
    "AVIF": "image/avif",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "DIB": "image/bmp",
    "TIFF": "image/tiff",
    "ICO": "image/x-icon",
    "JPEG2000": "image/jp2",
}
# First bytes of other files that are sent as images -> what they are. Not decoded.
_OTHER_FILES: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"%PDF-"), "a PDF"),
    (re.compile(rb"%!PS"), "a PostScript file"),
    (re.compile(rb"8BPS"), "a Photoshop file"),
    (re.compile(rb"\s*<(?:!doctype html|html|head|body)\b", re.IGNORECASE), "a web page, not an image"),
    (re.compile(rb"\s*<[\s\S]{0,2000}?svg\b"), "an SVG drawing"),
    (re.compile(rb"\s*\{"), "JSON, not an image"),
    (re.compile(rb"....ftyp(?:isom|iso[2-6]|mp4|avc1|M4V|qt  |3gp)", re.DOTALL), "a video, not an image"),
    (re.compile(rb"\x1a\x45\xdf\xa3"), "a video, not an image"),
    (re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL "), "a JPEG XL image"),
    (re.compile(rb"PK\x03\x04"), "a ZIP archive, not an image"),
)
_HEAD_BYTES = 2048
# Files within these limits are looked through in milliseconds, without a child.
_SMALL_BYTES = 16 * 1024 * 1024
_CPU_SECONDS, _WALL_SECONDS = 30, 60
_OUTPUT_SIDES = 65_535
_SOURCES = re.compile(r"[A-Za-z0-9 ;_.-]{1,40}")


@dataclass(frozen=True, slots=True)
class NormalizedImage:
    """The image to upload, its properties, and what was changed (`adjusted`, "" values never occur)."""

    content: IO[bytes]
    info: ImageInfo
    adjusted: dict[str, str] = field(default_factory=dict)


def normalize_image(
    content: IO[bytes], *, owner: str | None = None, while_waiting: Callable[[], object] = lambda: None
) -> NormalizedImage:
    """Return the image as upstream gets it. Raises InvalidImageError. The content stays open."""
    found = begin_normalization(content)
    return found if isinstance(found, NormalizedImage) else run(found, owner=owner, while_waiting=while_waiting)


def begin_normalization(content: IO[bytes]) -> NormalizedImage | Work[NormalizedImage]:
    """Return the image if no child is needed for it, otherwise the work. Raises InvalidImageError."""
    size = content.seek(0, io.SEEK_END)
    structure = None
    if size <= _SMALL_BYTES:
        try:
            structure = read_structure(content, max_parts=FEW_PARTS)
        except TooManyPartsError:
            return _work(content, None)
        if structure is not None and not structure.needs_decoding:
            return _without_child(content, structure)
    if structure is None:
        _reject_other_files(content)
    return _work(content, structure)


def _without_child(content: IO[bytes], structure: ImageStructure) -> NormalizedImage:
    if not structure.private:
        return NormalizedImage(content, structure.info)
    stripped: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - the caller closes it
    copy_parts(content, structure.parts, stripped)
    return NormalizedImage(stripped, structure.info, {"metadata": "removed"})


def _work(content: IO[bytes], structure: ImageStructure | None) -> Work[NormalizedImage]:
    pixels = structure.info.width * structure.info.height if structure is not None else MAX_INPUT_PIXELS
    return Work(
        IMAGES,
        "normalize",
        on_disk(content),
        Limits(memory_for(pixels), _CPU_SECONDS, _WALL_SECONDS),
        lambda report, result: _from_report(content, report, result),
        lambda reason: InvalidImageError(REASONS.get(reason, REASONS["damaged"])),
        weight=weight_of(pixels),
    )


def _reject_other_files(content: IO[bytes]) -> None:
    content.seek(0)
    head = content.read(_HEAD_BYTES)
    if not head:
        raise InvalidImageError("it is empty")
    for pattern, what in _OTHER_FILES:
        if pattern.match(head):
            raise InvalidImageError(f"it is {what}; send a {READABLE} image")


def _from_report(content: IO[bytes], report: dict[str, Any], result: IO[bytes]) -> NormalizedImage:
    mime = report["mime"]
    if mime not in _ACCEPTED.values():
        raise ValueError("a report with an unknown type")
    info = ImageInfo(mime, *(bounded(report[side], 1, _OUTPUT_SIDES) for side in ("width", "height")))
    if not report["written"]:
        result.close()
        return NormalizedImage(content, info)
    if "source" not in report:
        return NormalizedImage(result, info, {"metadata": "removed"})
    return NormalizedImage(result, info, _adjustments(mime, report))


def _adjustments(mime: str, report: dict[str, Any]) -> dict[str, str]:
    name, mode = report["source"], report["mode"]
    if not (_SOURCES.fullmatch(name) and _SOURCES.fullmatch(mode)):
        raise ValueError("a report with an unknown format")
    source = _ACCEPTED.get(name) or _MIME_OF.get(name, f"image/{name.lower()}")
    adjusted = {}
    if source != mime:
        adjusted["converted_from"] = source
    if mode in {"CMYK", "LAB"}:
        adjusted["colours"] = f"converted from {mode} to RGB"
    if (orientation := bounded(report["orientation"], 1, 8)) != 1:
        adjusted["turned"] = f"upright (EXIF orientation {orientation})"
    if report["frames"]:
        adjusted["frames"] = "first"
    if report["private"]:
        adjusted["metadata"] = "removed"
    if report["repaired"]:
        adjusted["repaired"] = "the end of the file was missing"
    return adjusted
