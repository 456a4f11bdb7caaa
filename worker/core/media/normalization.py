"""Makes an image of a caller ready for upstream: upright, without private metadata, as PNG, JPEG or WebP.

A file that is already so stays as it is. Metadata alone is cut out without decoding, so the pixels stay the same. Only
a turned, foreign or incomplete file is decoded, in a child process.
"""

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO

from worker.core.media.image import ImageInfo, InvalidImageError
from worker.core.media.image_structure import ImageStructure, copy_parts, read_structure
from worker.core.media.sandboxed_decoding import READABLE, DecodedImage, decode_image

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


@dataclass(frozen=True, slots=True)
class NormalizedImage:
    """The image to upload, its properties, and what was changed (`adjusted`, "" values never occur)."""

    content: IO[bytes]
    info: ImageInfo
    adjusted: dict[str, str] = field(default_factory=dict)


def normalize_image(content: IO[bytes], *, while_waiting: Callable[[], object] = lambda: None) -> NormalizedImage:
    """Return the image as upstream gets it. Raises InvalidImageError. The content stays open."""
    structure = read_structure(content)
    if structure is None:
        _reject_other_files(content)
        return _from_decoded(decode_image(content, while_waiting=while_waiting), known=None)
    if structure.orientation != 1 or structure.unusual or not structure.complete:
        decoded = decode_image(
            content,
            known=True,
            cut=not structure.complete,
            scans_begun=structure.scans_begun,
            while_waiting=while_waiting,
        )
        return _from_decoded(decoded, known=structure)
    if not structure.private:
        return NormalizedImage(content, structure.info)
    stripped: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - the caller closes it
    copy_parts(content, structure.parts, stripped)
    return NormalizedImage(stripped, structure.info, {"metadata": "removed"})


def _reject_other_files(content: IO[bytes]) -> None:
    content.seek(0)
    head = content.read(_HEAD_BYTES)
    if not head:
        raise InvalidImageError("it is empty")
    for pattern, what in _OTHER_FILES:
        if pattern.match(head):
            raise InvalidImageError(f"it is {what}; send a {READABLE} image")


def _from_decoded(decoded: DecodedImage, *, known: ImageStructure | None) -> NormalizedImage:
    source = _ACCEPTED.get(decoded.source_format) or _MIME_OF.get(
        decoded.source_format, f"image/{decoded.source_format.lower()}"
    )
    adjusted = {}
    if source != decoded.info.mime:
        adjusted["converted_from"] = source
    if decoded.source_mode in {"CMYK", "LAB"}:
        adjusted["colours"] = f"converted from {decoded.source_mode} to RGB"
    if decoded.orientation != 1:
        adjusted["turned"] = f"upright (EXIF orientation {decoded.orientation})"
    if decoded.animated:
        adjusted["frames"] = "first"
    if decoded.private or (known is not None and known.private):
        adjusted["metadata"] = "removed"
    if known is not None and not known.complete:
        adjusted["repaired"] = "the end of the file was missing"
    return NormalizedImage(decoded.content, decoded.info, adjusted)
