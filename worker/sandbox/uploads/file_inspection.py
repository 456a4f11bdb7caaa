"""Inspects uploaded files: all facts are read from their bytes, not from the client's declarations."""

import hashlib
import io
from dataclasses import dataclass, field

import av
from av.error import FFmpegError
from PIL import Image, UnidentifiedImageError

_THUMB_SIDE = 1024


@dataclass(frozen=True)
class Thumbnail:
    """A small copy of an upload, drawn into results. Equal digests mean equal images."""

    digest: str
    data: bytes = field(compare=False, repr=False)

    def open(self) -> Image.Image:
        return Image.open(io.BytesIO(self.data)).convert("RGB")


@dataclass(frozen=True)
class FileInfo:
    """Facts of a file; `thumbnail` is None for audio."""

    width: int
    height: int
    format: str
    size: int
    md5: str
    thumbnail: Thumbnail | None
    seconds: float = 0.0
    fps: float = 0.0
    codec: str = ""
    # Text in the metadata of an image; can contain scripts.
    embedded_text: str = ""


def _thumbnail(image: Image.Image) -> Thumbnail:
    small = image.convert("RGB")
    small.thumbnail((_THUMB_SIDE, _THUMB_SIDE))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=85)
    return Thumbnail(hashlib.sha256(out.getvalue()).hexdigest()[:16], out.getvalue())


def _embedded_text(image: Image.Image) -> str:
    """Return the comment of a JPEG or GIF, or the texts of a PNG."""
    values = (value.decode("latin-1") if isinstance(value, bytes) else value for value in image.info.values())
    return " ".join(value for value in values if isinstance(value, str))[:4000]


def inspect_image(raw: bytes) -> FileInfo | None:
    """Return the facts of an image, or None when it cannot be read or is too large to decode."""
    try:
        with Image.open(io.BytesIO(raw)) as image:
            width, height, kind = image.width, image.height, (image.format or "").lower()
            # JPEG can decode at a fraction of its size, which keeps large uploads cheap.
            image.draft("RGB", (_THUMB_SIDE, _THUMB_SIDE))
            embedded_text = _embedded_text(image)
            thumbnail = _thumbnail(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return FileInfo(width, height, kind, len(raw), hashlib.md5(raw).hexdigest(), thumbnail, embedded_text=embedded_text)


def inspect_media(raw: bytes) -> FileInfo | None:
    """Return the facts of a video or of an audio file (no thumbnail), or None when it is neither."""
    try:
        with av.open(io.BytesIO(raw), "r") as media:
            seconds = float(media.duration or 0) / av.time_base
            kind = media.format.name.upper().split(",")
            format_name = "MP4" if "MP4" in kind else kind[0]
            md5 = hashlib.md5(raw).hexdigest()
            if not media.streams.video:
                return FileInfo(0, 0, format_name, len(raw), md5, None, seconds) if media.streams.audio else None
            stream = media.streams.video[0]
            first = next(media.decode(stream)).to_image()  # type: ignore[no-untyped-call]
            return FileInfo(
                width=first.width,
                height=first.height,
                format=format_name,
                size=len(raw),
                md5=md5,
                thumbnail=_thumbnail(first),
                seconds=seconds,
                fps=float(stream.average_rate or 0),
                codec=stream.codec_context.name,
            )
    except (FFmpegError, OSError, ValueError, StopIteration):
        return None
