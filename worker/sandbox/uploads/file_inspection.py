"""What an uploaded file really is: read from its bytes, never from what the caller says about it."""

import hashlib
import io
from dataclasses import dataclass, field

import av
from av.error import FFmpegError
from PIL import Image, UnidentifiedImageError

_THUMB_SIDE = 1024


@dataclass(frozen=True)
class Thumb:
    """A small copy of an upload, pasted into what is made from it. Two of equal digest are the same picture."""

    digest: str
    data: bytes = field(compare=False, repr=False)

    def open(self) -> Image.Image:
        return Image.open(io.BytesIO(self.data)).convert("RGB")


@dataclass(frozen=True)
class Contents:
    """The facts of one file; `thumb` is missing for sounds."""

    width: int
    height: int
    format: str
    size: int
    md5: str
    thumb: Thumb | None
    seconds: float = 0.0
    fps: float = 0.0
    codec: str = ""
    # What a picture says of itself beside its pixels: the place for scripts.
    words: str = ""


def _thumb(picture: Image.Image) -> Thumb:
    small = picture.convert("RGB")
    small.thumbnail((_THUMB_SIDE, _THUMB_SIDE))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=85)
    return Thumb(hashlib.sha256(out.getvalue()).hexdigest()[:16], out.getvalue())


def _words(picture: Image.Image) -> str:
    """The comment of a JPEG or GIF and the texts of a PNG."""
    told = (value.decode("latin-1") if isinstance(value, bytes) else value for value in picture.info.values())
    return " ".join(value for value in told if isinstance(value, str))[:4000]


def examine_picture(raw: bytes) -> Contents | None:
    """None when the bytes are no picture, or one too big to be unpacked."""
    try:
        with Image.open(io.BytesIO(raw)) as picture:
            width, height, kind = picture.width, picture.height, (picture.format or "").lower()
            # JPEG decodes at a fraction of its size: an upload of many megapixels stays cheap.
            picture.draft("RGB", (_THUMB_SIDE, _THUMB_SIDE))
            words = _words(picture)
            thumb = _thumb(picture)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return Contents(width, height, kind, len(raw), hashlib.md5(raw).hexdigest(), thumb, words=words)


def examine_media(raw: bytes) -> Contents | None:
    """A video, or a sound for the caller to tell apart by its missing picture; None when it is neither."""
    try:
        with av.open(io.BytesIO(raw), "r") as media:
            seconds = float(media.duration or 0) / av.time_base
            kind = media.format.name.upper().split(",")
            known = "MP4" if "MP4" in kind else kind[0]
            md5 = hashlib.md5(raw).hexdigest()
            if not media.streams.video:
                return Contents(0, 0, known, len(raw), md5, None, seconds) if media.streams.audio else None
            stream = media.streams.video[0]
            first = next(media.decode(stream)).to_image()  # type: ignore[no-untyped-call]
            return Contents(
                width=first.width,
                height=first.height,
                format=known,
                size=len(raw),
                md5=md5,
                thumb=_thumb(first),
                seconds=seconds,
                fps=float(stream.average_rate or 0),
                codec=stream.codec_context.name,
            )
    except (FFmpegError, OSError, ValueError, StopIteration):
        return None
