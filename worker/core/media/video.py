"""Inspects video and audio files by their bytes, and creates preview images of videos.

File names, MIME types and lengths declared by clients are ignored. The first bytes determine the container and only its
demuxer is used: formats that refer to other files or URLs (playlists) are never opened.
"""

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from PIL import Image

MAX_INPUT_BYTES = 100 * 1024 * 1024
# Total of all reference videos of a job (protocol section 7.2), and the rounding of containers.
MAX_REFERENCE_MILLISECONDS = 15_000
ROUNDING_MILLISECONDS = 500
# More than 8K; a decoded frame takes 60 MB.
MAX_FRAME_PIXELS = 40_000_000
_THUMBNAIL_SIDE = 1280
SHEET_COLUMNS, SHEET_ROWS = 4, 4
_TILE_WIDTH, _TILE_MAX_HEIGHT = 240, 426
# One minute of 1080p. Previews of longer videos use key frames only, as decoding all frames would take minutes.
_MAX_DECODED_PIXELS = 3_200_000_000
_JPEG_QUALITY = 85
# Seconds that a complete stream may be shorter than its own length, and than that of the file with its other streams.
_STREAM_TOLERANCE_SECONDS, _FILE_TOLERANCE_SECONDS = 0.25, 1.0
# A decoder takes a CPU core and tens of megabytes, so only a few run at once.
_decode_slots = threading.Semaphore(2)
_WAIT_SECONDS = 5.0
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
_TIME_BASE = 1_000_000  # units per second of lengths of whole files
_MEDIA_ERRORS = (OSError, ValueError, EOFError, ArithmeticError, StopIteration)


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


def inspect_video(content: IO[bytes], *, keep_alive: KeepAlive = _do_nothing) -> MediaInfo:
    """Return format, size and length of a complete, decodable MP4, MOV or WebM. Raises InvalidMediaError."""
    mime = _detect_mime(content, audio=False)
    with _open_stream(content, mime, "video", keep_alive) as (container, stream):
        width, height = _read_size(stream)
        next(container.decode(stream))
        length = _measure_milliseconds(container, stream, keep_alive)
        return MediaInfo(mime, length, width, height)


def inspect_audio(content: IO[bytes], *, keep_alive: KeepAlive = _do_nothing) -> MediaInfo:
    """Return format and length of an MP3, WAV, M4A, OGG, FLAC, AAC or WebM audio file. Raises InvalidMediaError."""
    mime = _detect_mime(content, audio=True)
    with _open_stream(content, mime, "audio", keep_alive) as (container, stream):
        if container.streams.video and not _is_cover(container.streams.video[0]):
            raise InvalidMediaError("it is a video, not an audio file")
        next(container.decode(stream))
        return MediaInfo(mime, _measure_milliseconds(container, stream, keep_alive))


def extract_first_frame(content: IO[bytes], *, keep_alive: KeepAlive = _do_nothing) -> JpegImage:
    """Return the first frame with at most 1280 pixels on its longer side. Raises InvalidMediaError."""
    with _open_stream(content, _detect_mime(content, audio=False), "video", keep_alive) as (container, stream):
        _read_size(stream)
        image = next(container.decode(stream)).to_image()
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    return _encode_jpeg(image)


def make_sprite_sheet(content: IO[bytes], *, keep_alive: KeepAlive = _do_nothing) -> JpegImage:
    """Return sixteen evenly spaced frames from first to last, in rows of four. Raises InvalidMediaError."""
    with _open_stream(content, _detect_mime(content, audio=False), "video", keep_alive) as (container, stream):
        size = _read_size(stream)
        seconds = _measure_milliseconds(container, stream, keep_alive) / 1000
        if seconds * float(stream.average_rate or 24) * size[0] * size[1] > _MAX_DECODED_PIXELS:
            stream.codec_context.skip_frame = "NONKEY"
        container.seek(0)
        tiles = _make_tiles(container.decode(stream), seconds, _tile_size(*size), keep_alive)
    if not tiles:
        raise InvalidMediaError("it has no frames")
    width, height = tiles[0].size
    sheet = Image.new("RGB", (width * SHEET_COLUMNS, height * SHEET_ROWS))
    for number in range(SHEET_COLUMNS * SHEET_ROWS):
        tile = tiles[min(number, len(tiles) - 1)]
        sheet.paste(tile, (number % SHEET_COLUMNS * width, number // SHEET_COLUMNS * height))
    return _encode_jpeg(sheet)


def _make_tiles(
    frames: Iterator[Any], seconds: float, size: tuple[int, int], keep_alive: KeepAlive
) -> list[Image.Image]:
    """Return a small image for each time of the sheet: the frame shown at that time."""
    count = SHEET_COLUMNS * SHEET_ROWS
    times = [seconds * number / (count - 1) for number in range(count)]
    tiles: list[Image.Image] = []
    current = None
    for number, frame in enumerate(frames):
        if number % 32 == 0:
            keep_alive()
        while current is not None and len(tiles) < count and frame.time is not None and frame.time > times[len(tiles)]:
            tiles.append(_resize_frame(current, size))
        current = frame
    if current is not None and len(tiles) < count:
        tiles.append(_resize_frame(current, size))
    return tiles


def _resize_frame(frame: Any, size: tuple[int, int]) -> Image.Image:
    image: Image.Image = frame.reformat(width=size[0], height=size[1], format="rgb24").to_image()
    return image


def _tile_size(width: int, height: int) -> tuple[int, int]:
    scale = min(_TILE_WIDTH / width, _TILE_MAX_HEIGHT / height)
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def _encode_jpeg(image: Image.Image) -> JpegImage:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_JPEG_QUALITY)
    return JpegImage(out.getvalue(), *image.size)


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


@contextmanager
def _open_stream(content: IO[bytes], mime: str, kind: str, keep_alive: KeepAlive) -> Iterator[tuple[Any, Any]]:
    """Open the container and its first stream of that kind. Library errors become InvalidMediaError."""
    import av  # 5 MB that a process without videos does not need

    content.seek(0)
    label = "video" if kind == "video" else "audio file"
    track = "video" if kind == "video" else "audio"
    while not _decode_slots.acquire(timeout=_WAIT_SECONDS):
        keep_alive()
    try:
        keep_alive()
        with av.open(content, "r", format=_DEMUXERS[mime], options={"protocol_whitelist": ""}) as container:
            streams = container.streams.video if kind == "video" else container.streams.audio
            if not streams:
                raise InvalidMediaError(f"it has no {track}")
            streams[0].codec_context.thread_count = 2
            yield container, streams[0]
    except (av.FFmpegError, *_MEDIA_ERRORS):
        raise InvalidMediaError(f"the {label} is damaged or incomplete") from None
    finally:
        _decode_slots.release()


def _read_size(stream: Any) -> tuple[int, int]:
    width, height = stream.codec_context.width, stream.codec_context.height
    if not (width > 0 and height > 0):
        raise InvalidMediaError("the video is damaged or incomplete")
    if width * height > MAX_FRAME_PIXELS:
        raise InvalidMediaError(f"its frames have more than {MAX_FRAME_PIXELS // 1_000_000} million pixels")
    return width, height


def _is_cover(stream: Any) -> bool:
    """Return whether the stream is a cover image, which the library treats as video."""
    return bool(stream.codec_context.name in {"mjpeg", "png"})


def _measure_milliseconds(container: Any, stream: Any, keep_alive: KeepAlive) -> int:
    """Return the length of a complete file, from its index or by counting packets. Raises InvalidMediaError."""
    declared = float(container.duration) / _TIME_BASE if container.duration else 0.0
    stream_length = float(stream.duration * stream.time_base) if stream.duration else 0.0
    if declared > 2 * _FILE_TOLERANCE_SECONDS:
        container.seek(int((declared - 2 * _FILE_TOLERANCE_SECONDS) * _TIME_BASE))
    begin, end = float((stream.start_time or 0) * stream.time_base), 0.0
    for packet in container.demux(stream):
        keep_alive()
        if packet.is_corrupt:
            raise InvalidMediaError("it is incomplete")
        if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base) - begin)
    if end < max(
        stream_length - _STREAM_TOLERANCE_SECONDS, min(declared, stream_length or declared) - _FILE_TOLERANCE_SECONDS
    ):
        raise InvalidMediaError("it is incomplete")
    seconds = declared or end
    if seconds <= 0:
        raise InvalidMediaError("it has no length")
    return round(seconds * 1000)
