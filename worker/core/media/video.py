"""Inspects video and audio files by their bytes, and creates preview images of videos, in child processes.

File names, MIME types and lengths declared by clients are ignored. The first bytes determine the container and only its
demuxer is used: formats that refer to other files or URLs (playlists) are never opened.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, TypeVar

from worker.core.media.isolation.client import MEGABYTE, Limits, Work, bounded, on_disk, run
from worker.core.media.isolation.protocol import MEDIA
from worker.core.media.video_limits import MAX_FRAME_PIXELS, MAX_MILLISECONDS

Value = TypeVar("Value")

MAX_INPUT_BYTES = 100 * 1024 * 1024
# Total of all reference videos of a job, and the rounding of containers.
MAX_REFERENCE_MILLISECONDS = 15_000
ROUNDING_MILLISECONDS = 500
_MEMORY_BYTES = 1536 * MEGABYTE
# Reading the properties takes far less than a second, all frames of a preview about twenty.
_INSPECTION = Limits(memory_bytes=_MEMORY_BYTES, cpu_seconds=10, wall_seconds=30, output_bytes=0)
_PREVIEW = Limits(memory_bytes=_MEMORY_BYTES, cpu_seconds=120, wall_seconds=240, output_bytes=50 * MEGABYTE)
# Called regularly during long work, so that the caller can renew its lease.
KeepAlive = Callable[[], object]

# MIME type -> FFmpeg demuxer
_DEMUXERS = {
    "video/mp4": "mov",
    "video/quicktime": "mov",
    "video/webm": "matroska",
    "audio/mp4": "mov",
    "audio/mpeg": "mp3",
    "audio/wav": "wav",
    "audio/ogg": "ogg",
    "audio/flac": "flac",
    "audio/aac": "aac",
    "audio/webm": "matroska",
}
_EXTENSIONS = {"video/quicktime": "mov", "audio/mpeg": "mp3", "audio/mp4": "m4a"}
# Reason given by a decoder -> what the caller reads; {what} is "video" or "audio file".
_REASONS = {
    "damaged": "the {what} is damaged or incomplete",
    "memory": "decoding it takes too much memory",
    "time": "decoding it takes too long",
    "incomplete": "it is incomplete",
    "no_length": "it has no length",
    "no_track": "it has no {track}",
    "no_frames": "it has no frames",
    "too_long": "it declares a length of more than a day",
    "video": "it is a video, not an audio file",
    "codec": "its codec is not supported; use H.264, H.265, AV1, VP8 or VP9 for video and AAC, MP3, Opus, Vorbis, FLAC "
    "or PCM for audio",
    "pixels": f"its frames have more than {MAX_FRAME_PIXELS // 1_000_000} million pixels",
    "sound": "its sample rate or its number of channels is not supported",
}


class InvalidMediaError(Exception):
    """The bytes are not a usable video or audio file. The message is a reason for API callers."""


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """Format, length and size of a file. Audio has no width and height."""

    mime: str
    milliseconds: int
    width: int | None = None
    height: int | None = None

    @property
    def extension(self) -> str:
        """File name extension without the dot."""
        return _EXTENSIONS.get(self.mime, self.mime.partition("/")[2])


@dataclass(frozen=True, slots=True)
class JpegImage:
    """A JPEG made from a video. The same video gives the same bytes."""

    data: bytes
    width: int
    height: int

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes in lower-case hex."""
        return hashlib.sha256(self.data).hexdigest()


def _do_nothing() -> None:
    """The default `keep_alive`."""


def video_inspection(content: IO[bytes]) -> Work[MediaInfo]:
    """Return the work that finds format, size and length of a complete MP4, MOV or WebM. Raises InvalidMediaError."""
    mime = _detect_mime(content, audio=False)
    return _work(content, mime, "inspect_video", _INSPECTION, lambda report, result: _info(mime, report, result))


def audio_inspection(content: IO[bytes]) -> Work[MediaInfo]:
    """Return the work that finds format and length of an audio file in one of the known formats."""
    mime = _detect_mime(content, audio=True)
    return _work(content, mime, "inspect_audio", _INSPECTION, lambda report, result: _info(mime, report, result))


def first_frame(content: IO[bytes]) -> Work[JpegImage]:
    """Return the work that makes an image of the first frame, with at most 1280 pixels on its longer side."""
    return _work(content, _detect_mime(content, audio=False), "first_frame", _PREVIEW, _read_jpeg)


def sprite_sheet(content: IO[bytes]) -> Work[JpegImage]:
    """Return the work that makes an image of sixteen evenly spaced frames from first to last, in rows of four."""
    return _work(content, _detect_mime(content, audio=False), "sprite_sheet", _PREVIEW, _read_jpeg)


def inspect_video(content: IO[bytes], *, owner: str | None = None, keep_alive: KeepAlive = _do_nothing) -> MediaInfo:
    """Return format, size and length of a complete, decodable MP4, MOV or WebM. Raises InvalidMediaError."""
    return run(video_inspection(content), owner=owner, while_waiting=keep_alive)


def inspect_audio(content: IO[bytes], *, owner: str | None = None, keep_alive: KeepAlive = _do_nothing) -> MediaInfo:
    """Return format and length of an MP3, WAV, M4A, OGG, FLAC, AAC or WebM audio file. Raises InvalidMediaError."""
    return run(audio_inspection(content), owner=owner, while_waiting=keep_alive)


def _work(
    content: IO[bytes],
    mime: str,
    kind: str,
    limits: Limits,
    finish: Callable[[dict[str, Any], IO[bytes]], Value],
) -> Work[Value]:
    def refuse(reason: str) -> InvalidMediaError:
        is_audio = mime.startswith("audio/")
        text = _REASONS.get(reason, _REASONS["damaged"])
        what, track = ("audio file", "audio") if is_audio else ("video", "video")
        return InvalidMediaError(text.format(what=what, track=track))

    return Work(MEDIA, kind, on_disk(content), limits, finish, refuse, {"demuxer": _DEMUXERS[mime]})


def _info(mime: str, report: dict[str, Any], result: IO[bytes]) -> MediaInfo:
    result.close()
    length = bounded(report["milliseconds"], 1, MAX_MILLISECONDS)
    if mime.startswith("audio/"):
        return MediaInfo(mime, length)
    return MediaInfo(mime, length, *(bounded(report[side], 1, MAX_FRAME_PIXELS) for side in ("width", "height")))


def _read_jpeg(report: dict[str, Any], result: IO[bytes]) -> JpegImage:
    with result:
        result.seek(0)
        return JpegImage(result.read(), *(bounded(report[side], 1, MAX_FRAME_PIXELS) for side in ("width", "height")))


def _detect_mime(content: IO[bytes], *, audio: bool) -> str:
    """Return the MIME type by the first bytes. Raises InvalidMediaError."""
    content.seek(0)
    head = content.read(64)
    mime = _detect_container(head, audio=audio) or (_detect_audio(head) if audio else None)
    if mime is None:
        expected = "an MP3, WAV, M4A, OGG, FLAC, AAC or WebM audio file" if audio else "an MP4, MOV or WebM video"
        raise InvalidMediaError(f"it is not {expected}")
    return mime


def _detect_container(head: bytes, *, audio: bool) -> str | None:
    if head[4:8] == b"ftyp":
        if audio:
            return "audio/mp4"
        return "video/quicktime" if head[8:12] == b"qt  " else "video/mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3") and b"webm" in head:
        return "audio/webm" if audio else "video/webm"
    return None


def _detect_audio(head: bytes) -> str | None:
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        return "audio/wav"
    if head.startswith(b"OggS"):
        return "audio/ogg"
    if head.startswith(b"fLaC"):
        return "audio/flac"
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xF6 == 0xF0:
        return "audio/aac"
    if head.startswith(b"ID3") or (head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE0 == 0xE0):
        return "audio/mpeg"
    return None
