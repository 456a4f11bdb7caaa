"""What a video or a sound is, judged by its bytes alone, and the still pictures that show a video.

Names, MIME types and lengths that came with the bytes are never believed. The container is told by its first bytes and
only that reader is used: formats that name further files or addresses (playlists) are never opened.
"""

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import av
from av.error import FFmpegError
from PIL import Image

MAX_INPUT_BYTES = 100 * 1024 * 1024
# Of all reference videos of a job together (protocol section 7.2), and what containers round up.
MAX_REFERENCE_MILLISECONDS = 15_000
ROUNDED_UP_MILLISECONDS = 500
# More than 8K; a frame of it takes 60 MB decoded.
MAX_FRAME_PIXELS = 40_000_000
_THUMBNAIL_SIDE = 1280
SHEET_COLUMNS, SHEET_ROWS = 4, 4
_TILE_WIDTH, _TILE_MOST_HEIGHT = 240, 426
# A minute of 1080p. Longer films are shown by their key frames alone, for decoding all of them would take minutes.
_DECODED_PIXELS = 3_200_000_000
_JPEG_QUALITY = 85
# What a stream may lack of its own length and still be whole, and of that of the file, which other streams share.
_END_SECONDS, _FILE_END_SECONDS = 0.25, 1.0
# A decoder takes a core and tens of megabytes; more than a few at once would be felt by everybody.
_decoding = threading.Semaphore(2)
_PATIENCE_SECONDS = 5.0
# Called every now and then by what takes its time, so that nobody takes the caller for dead.
Keep = Callable[[], object]

# MIME type -> FFmpeg's reader
_READERS = {
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
_BROKEN = (FFmpegError, OSError, ValueError, EOFError, ArithmeticError, StopIteration)


class NotAClipError(Exception):
    """These bytes are no video, or no sound, that can be used. The message says why, fit for callers."""


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """What the bytes say of themselves. A sound has no pixels."""

    mime: str
    milliseconds: int
    width: int | None = None
    height: int | None = None

    @property
    def extension(self) -> str:
        """How a file with these bytes is named at its end."""
        return _EXTENSIONS.get(self.mime, self.mime.partition("/")[2])


@dataclass(frozen=True, slots=True)
class Still:
    """A JPEG made from a film; the same film gives the same bytes."""

    data: bytes
    width: int
    height: int

    @property
    def sha256(self) -> str:
        """Lower-case hex."""
        return hashlib.sha256(self.data).hexdigest()


def _idle() -> None:
    """Nobody waits."""


def video_facts(content: IO[bytes], *, keep: Keep = _idle) -> ClipFacts:
    """Kind, pixels and length of an MP4, MOV or WebM that can be decoded and is whole. Raises NotAClipError."""
    mime = _kind(content, sound=False)
    with _opened(content, mime, "video", keep) as (container, stream):
        width, height = _size(stream)
        next(container.decode(stream))
        length = _length(container, stream, keep)
        return ClipFacts(mime, length, width, height)


def sound_facts(content: IO[bytes], *, keep: Keep = _idle) -> ClipFacts:
    """Kind and length of an MP3, WAV, M4A, OGG, FLAC, AAC or WebM sound. Raises NotAClipError."""
    mime = _kind(content, sound=True)
    with _opened(content, mime, "audio", keep) as (container, stream):
        if container.streams.video and not _is_cover(container.streams.video[0]):
            raise NotAClipError("it is a video, not a sound")
        next(container.decode(stream))
        return ClipFacts(mime, _length(container, stream, keep))


def first_frame(content: IO[bytes], *, keep: Keep = _idle) -> Still:
    """The first frame, at most 1280 pixels along its longer side. Raises NotAClipError."""
    with _opened(content, _kind(content, sound=False), "video", keep) as (container, stream):
        _size(stream)
        picture = next(container.decode(stream)).to_image()
    picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    return _still(picture)


def sprite_sheet(content: IO[bytes], *, keep: Keep = _idle) -> Still:
    """Sixteen frames, evenly spread from the first to the last, in rows of four. Raises NotAClipError."""
    with _opened(content, _kind(content, sound=False), "video", keep) as (container, stream):
        size = _size(stream)
        seconds = _length(container, stream, keep) / 1000
        if seconds * float(stream.average_rate or 24) * size[0] * size[1] > _DECODED_PIXELS:
            stream.codec_context.skip_frame = "NONKEY"
        container.seek(0)
        tiles = _tiles(container.decode(stream), seconds, _tile_size(*size), keep)
    if not tiles:
        raise NotAClipError("it has no frames")
    width, height = tiles[0].size
    sheet = Image.new("RGB", (width * SHEET_COLUMNS, height * SHEET_ROWS))
    for number in range(SHEET_COLUMNS * SHEET_ROWS):
        tile = tiles[min(number, len(tiles) - 1)]
        sheet.paste(tile, (number % SHEET_COLUMNS * width, number // SHEET_COLUMNS * height))
    return _still(sheet)


def _tiles(frames: Iterator[Any], seconds: float, size: tuple[int, int], keep: Keep) -> list[Image.Image]:
    """A small picture for each moment of the sheet: the last frame that is shown at it."""
    count = SHEET_COLUMNS * SHEET_ROWS
    moments = [seconds * number / (count - 1) for number in range(count)]
    tiles: list[Image.Image] = []
    shown = None
    for number, frame in enumerate(frames):
        if number % 32 == 0:
            keep()
        while shown is not None and len(tiles) < count and frame.time is not None and frame.time > moments[len(tiles)]:
            tiles.append(_small(shown, size))
        shown = frame
    if shown is not None and len(tiles) < count:
        tiles.append(_small(shown, size))
    return tiles


def _small(frame: Any, size: tuple[int, int]) -> Image.Image:
    picture: Image.Image = frame.reformat(width=size[0], height=size[1], format="rgb24").to_image()
    return picture


def _tile_size(width: int, height: int) -> tuple[int, int]:
    scale = min(_TILE_WIDTH / width, _TILE_MOST_HEIGHT / height)
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def _still(picture: Image.Image) -> Still:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_JPEG_QUALITY)
    return Still(out.getvalue(), *picture.size)


def _kind(content: IO[bytes], *, sound: bool) -> str:
    """The MIME type by the first bytes."""
    content.seek(0)
    head = content.read(64)
    mime = _container(head, sound=sound) if not sound else _container(head, sound=True) or _sound(head)
    if mime is None:
        wanted = "an MP3, WAV, M4A, OGG, FLAC, AAC or WebM sound" if sound else "an MP4, MOV or WebM video"
        raise NotAClipError(f"it is not {wanted}")
    return mime


def _container(head: bytes, *, sound: bool) -> str | None:
    if head[4:8] == b"ftyp":
        if sound:
            return "audio/mp4"
        return "video/quicktime" if head[8:12] == b"qt  " else "video/mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3") and b"webm" in head:
        return "audio/webm" if sound else "video/webm"
    return None


def _sound(head: bytes) -> str | None:
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


@contextmanager
def _opened(content: IO[bytes], mime: str, kind: str, keep: Keep) -> Iterator[tuple[Any, Any]]:
    """The container and its first stream of that kind; whatever the library finds wrong is NotAClipError."""
    content.seek(0)
    what = "video" if kind == "video" else "sound"
    while not _decoding.acquire(timeout=_PATIENCE_SECONDS):
        keep()
    try:
        keep()
        with av.open(content, "r", format=_READERS[mime], options={"protocol_whitelist": ""}) as container:
            streams = container.streams.video if kind == "video" else container.streams.audio
            if not streams:
                raise NotAClipError(f"it has no {what}")
            streams[0].codec_context.thread_count = 2
            yield container, streams[0]
    except _BROKEN:
        raise NotAClipError(f"the {what} is broken or cut off") from None
    finally:
        _decoding.release()


def _size(stream: Any) -> tuple[int, int]:
    width, height = stream.codec_context.width, stream.codec_context.height
    if not (width > 0 and height > 0):
        raise NotAClipError("the video is broken or cut off")
    if width * height > MAX_FRAME_PIXELS:
        raise NotAClipError(f"its frames have more than {MAX_FRAME_PIXELS // 1_000_000} million pixels")
    return width, height


def _is_cover(stream: Any) -> bool:
    """The picture of an album is a video stream to the library."""
    return bool(stream.codec_context.name in {"mjpeg", "png"})


def _length(container: Any, stream: Any, keep: Keep) -> int:
    """Milliseconds of a clip that is there to its end, as told by its index, else counted."""
    told = float(container.duration) / av.time_base if container.duration else 0.0
    own = float(stream.duration * stream.time_base) if stream.duration else 0.0
    if told > 2 * _FILE_END_SECONDS:
        container.seek(int((told - 2 * _FILE_END_SECONDS) * av.time_base))
    begin, end = float((stream.start_time or 0) * stream.time_base), 0.0
    for packet in container.demux(stream):
        keep()
        if packet.is_corrupt:
            raise NotAClipError("it is cut off")
        if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base) - begin)
    if end < max(own - _END_SECONDS, min(told, own or told) - _FILE_END_SECONDS):
        raise NotAClipError("it is cut off")
    seconds = told or end
    if seconds <= 0:
        raise NotAClipError("it has no length")
    return round(seconds * 1000)
