"""Inspects video and audio files, and creates preview images of videos.

Runs only in a child process (`worker.core.media.isolation`). The parent names the demuxer by the first bytes: formats
that refer to other files or URLs (playlists) are never opened, and only the decoders of these lists are used.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import av
from PIL import Image

from worker.core.media.isolation.protocol import UnusableFileError
from worker.core.media.video_limits import MAX_FRAME_PIXELS, MAX_MILLISECONDS, SHEET_COLUMNS, SHEET_ROWS

_VIDEO_DECODERS = frozenset(
    {
        *("h264", "hevc", "libdav1d", "av1", "vp8", "vp9", "libvpx", "libvpx-vp9"),
        *("mpeg4", "mjpeg", "prores", "vvc", "h263", "mpeg2video"),
    }
)
_AUDIO_DECODERS = frozenset(
    {
        *("aac", "mp3", "mp3float", "opus", "libopus", "vorbis", "libvorbis", "flac", "alac", "ac3", "eac3"),
        *("pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"),
        *("pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_alaw", "pcm_mulaw", "adpcm_ms", "adpcm_ima_wav"),
    }
)
# Images in audio files: recognized, never decoded.
_COVERS = frozenset({"mjpeg", "png"})
_MIN_SAMPLE_RATE, _MAX_SAMPLE_RATE = 1_000, 768_000
_MAX_CHANNELS = 64
_MAX_FRAME_RATE = 1_000.0
_THUMBNAIL_SIDE = 1280
_TILE_WIDTH, _TILE_MAX_HEIGHT = 240, 426
# One minute of 1080p. Previews of longer videos use key frames only, as decoding all frames would take minutes.
_MAX_DECODED_PIXELS = 3_200_000_000
_JPEG_QUALITY = 85
# Seconds that a complete stream may be shorter than its own length, and than that of the file with its other streams.
_STREAM_TOLERANCE_SECONDS, _FILE_TOLERANCE_SECONDS = 0.25, 1.0
_TIME_BASE = 1_000_000  # units per second of lengths of whole files


def inspect_video(source: IO[bytes], _target: IO[bytes], *, demuxer: str) -> dict[str, Any]:
    """Return size and length of a complete, decodable video."""
    with _open_stream(source, demuxer, "video") as (container, stream):
        width, height = _read_size(stream)
        next(container.decode(stream))
        return {"milliseconds": _measure_milliseconds(container, stream), "width": width, "height": height}


def inspect_audio(source: IO[bytes], _target: IO[bytes], *, demuxer: str) -> dict[str, Any]:
    """Return the length of a complete, decodable audio file."""
    with _open_stream(source, demuxer, "audio") as (container, stream):
        if any(_decoder_name(other) not in _COVERS for other in container.streams.video):
            raise UnusableFileError("video")
        _check_sound(stream)
        next(container.decode(stream))
        return {"milliseconds": _measure_milliseconds(container, stream)}


def extract_first_frame(source: IO[bytes], target: IO[bytes], *, demuxer: str) -> dict[str, Any]:
    """Write the first frame as a JPEG with at most 1280 pixels on its longer side."""
    with _open_stream(source, demuxer, "video") as (container, stream):
        _read_size(stream)
        image = next(container.decode(stream)).to_image()
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    return _write_jpeg(image, target)


def make_sprite_sheet(source: IO[bytes], target: IO[bytes], *, demuxer: str) -> dict[str, Any]:
    """Write sixteen evenly spaced frames from first to last, in rows of four, as a JPEG."""
    with _open_stream(source, demuxer, "video") as (container, stream):
        size = _read_size(stream)
        seconds = _measure_milliseconds(container, stream) / 1000
        rate = min(float(stream.average_rate or 24), _MAX_FRAME_RATE)
        if seconds * rate * size[0] * size[1] > _MAX_DECODED_PIXELS:
            stream.codec_context.skip_frame = "NONKEY"
        container.seek(0)
        tiles = _make_tiles(container.decode(stream), seconds, _tile_size(*size))
    if not tiles:
        raise UnusableFileError("no_frames")
    width, height = tiles[0].size
    sheet = Image.new("RGB", (width * SHEET_COLUMNS, height * SHEET_ROWS))
    for number in range(SHEET_COLUMNS * SHEET_ROWS):
        tile = tiles[min(number, len(tiles) - 1)]
        sheet.paste(tile, (number % SHEET_COLUMNS * width, number // SHEET_COLUMNS * height))
    return _write_jpeg(sheet, target)


def _make_tiles(frames: Iterator[Any], seconds: float, size: tuple[int, int]) -> list[Image.Image]:
    """Return a small image for each time of the sheet: the frame shown at that time."""
    count = SHEET_COLUMNS * SHEET_ROWS
    times = [seconds * number / (count - 1) for number in range(count)]
    tiles: list[Image.Image] = []
    current = None
    for frame in frames:
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


def _write_jpeg(image: Image.Image, target: IO[bytes]) -> dict[str, Any]:
    image.save(target, "JPEG", quality=_JPEG_QUALITY)
    return {"width": image.width, "height": image.height}


@contextmanager
def _open_stream(source: IO[bytes], demuxer: str, kind: str) -> Iterator[tuple[Any, Any]]:
    """Open the container and its first stream of that kind, if its decoder is one of ours."""
    decoders = _VIDEO_DECODERS if kind == "video" else _AUDIO_DECODERS
    options = {
        "protocol_whitelist": "",
        "format_whitelist": demuxer,
        "codec_whitelist": ",".join(sorted(_VIDEO_DECODERS | _AUDIO_DECODERS)),
    }
    with av.open(source, "r", format=demuxer, options=options) as container:
        streams: Any = container.streams.video if kind == "video" else container.streams.audio
        if not streams:
            raise UnusableFileError("no_track")
        stream = streams[0]
        # A codec that FFmpeg does not know has no context at all.
        if _decoder_name(stream) not in decoders:
            raise UnusableFileError("codec")
        stream.codec_context.thread_count = 2
        yield container, stream


def _decoder_name(stream: Any) -> str | None:
    return stream.codec_context.name if stream.codec_context is not None else None


def _read_size(stream: Any) -> tuple[int, int]:
    width, height = stream.codec_context.width, stream.codec_context.height
    if not (width > 0 and height > 0):
        raise UnusableFileError("damaged")
    if width * height > MAX_FRAME_PIXELS:
        raise UnusableFileError("pixels")
    return width, height


def _check_sound(stream: Any) -> None:
    context = stream.codec_context
    if not (_MIN_SAMPLE_RATE <= context.sample_rate <= _MAX_SAMPLE_RATE and 0 < context.channels <= _MAX_CHANNELS):
        raise UnusableFileError("sound")


def _measure_milliseconds(container: Any, stream: Any) -> int:
    """Return the length of a complete file, from its index or by counting packets. Raises UnusableFileError."""
    declared = float(container.duration) / _TIME_BASE if container.duration else 0.0
    stream_length = float(stream.duration * stream.time_base) if stream.duration else 0.0
    if declared > 2 * _FILE_TOLERANCE_SECONDS:
        container.seek(int((declared - 2 * _FILE_TOLERANCE_SECONDS) * _TIME_BASE))
    begin, end = float((stream.start_time or 0) * stream.time_base), 0.0
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise UnusableFileError("incomplete")
        if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base) - begin)
    if end < max(
        stream_length - _STREAM_TOLERANCE_SECONDS, min(declared, stream_length or declared) - _FILE_TOLERANCE_SECONDS
    ):
        raise UnusableFileError("incomplete")
    seconds = declared or end
    if seconds <= 0:
        raise UnusableFileError("no_length")
    if seconds * 1000 > MAX_MILLISECONDS:
        raise UnusableFileError("too_long")
    return round(seconds * 1000)


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "inspect_video": inspect_video,
    "inspect_audio": inspect_audio,
    "first_frame": extract_first_frame,
    "sprite_sheet": make_sprite_sheet,
}
# Loaded before the fork: afterwards a child can open no file. PyAV imports most of its modules at their first use.
Image.init()
for _module in pkgutil.walk_packages(av.__path__, "av."):
    if _module.name not in {"av.__main__", "av.datasets"}:
        importlib.import_module(_module.name)
