"""Inspection of video and audio bytes, and the preview images of a video."""

import io
from collections.abc import Callable
from typing import IO

import pytest

from tests.support.media_files import make_audio, make_video, pixel_color
from worker.core.media.isolation.client import Work, run
from worker.core.media.video import (
    InvalidMediaError,
    JpegImage,
    first_frame,
    inspect_audio,
    inspect_video,
    sprite_sheet,
)

VIDEO = make_video("red", "blue", seconds=4)


@pytest.mark.parametrize(
    ("kind", "mime", "extension"),
    [("mp4", "video/mp4", "mp4"), ("mov", "video/quicktime", "mov"), ("webm", "video/webm", "webm")],
)
def test_video_facts_are_read_from_bytes(kind: str, mime: str, extension: str) -> None:
    info = inspect_video(io.BytesIO(make_video("red", seconds=2, kind=kind)))
    assert (info.mime, info.extension, info.width, info.height) == (mime, extension, 64, 64)
    assert abs(info.milliseconds - 2000) <= 130


@pytest.mark.parametrize(
    ("kind", "codec", "mime", "extension"),
    [
        ("mp3", "libmp3lame", "audio/mpeg", "mp3"),
        ("wav", "pcm_s16le", "audio/wav", "wav"),
        ("ipod", "aac", "audio/mp4", "m4a"),
        ("adts", "aac", "audio/aac", "aac"),
        ("flac", "flac", "audio/flac", "flac"),
        ("ogg", "libopus", "audio/ogg", "ogg"),
        ("webm", "libopus", "audio/webm", "webm"),
    ],
)
def test_audio_facts_are_read_from_bytes(kind: str, codec: str, mime: str, extension: str) -> None:
    info = inspect_audio(io.BytesIO(make_audio(seconds=1.5, kind=kind, codec=codec)))
    assert (info.mime, info.extension, info.width) == (mime, extension, None)
    assert 1400 <= info.milliseconds <= 1700


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"#EXTM3U\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        VIDEO[:40],
        VIDEO[: len(VIDEO) // 2],
        b"\x00\x00\x00\x18ftypisom" + b"\x00" * 500,
        make_audio(),
        make_audio(kind="ipod", codec="aac"),
    ],
)
def test_invalid_or_incomplete_video_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidMediaError):
        inspect_video(io.BytesIO(data))


@pytest.mark.parametrize("missing_bytes", [20, 200, 1000])
def test_video_without_its_end_is_refused(missing_bytes: int) -> None:
    video = _video_with_index_at_the_front()
    inspect_video(io.BytesIO(video))
    with pytest.raises(InvalidMediaError, match="incomplete"):
        inspect_video(io.BytesIO(video[:-missing_bytes]))


def _video_with_index_at_the_front() -> bytes:
    """The sandbox's videos begin with their index, so an incomplete file can frame be opened."""
    from worker.sandbox.results.video_files import VideoDrawing, render_video

    return render_video(VideoDrawing(text="x", colour=1, width=320, height=240, seconds=2))


@pytest.mark.parametrize("data", [b"", b"ID3", b"RIFF1234WAVE", VIDEO, b"\xff\xfb" + b"\x00" * 50])
def test_invalid_audio_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidMediaError):
        inspect_audio(io.BytesIO(data))


def test_first_frame_and_sprite_sheet_show_the_video_and_are_deterministic() -> None:
    content = io.BytesIO(VIDEO)
    frame, sheet = run(first_frame(content)), run(sprite_sheet(content))
    assert (frame.width, frame.height) == (64, 64)
    assert _is_near(pixel_color(frame.data), (255, 0, 0))
    assert (sheet.width, sheet.height) == (4 * 240, 4 * 240)
    # Four rows of four: the first half of the video is red, the second blue.
    assert _is_near(pixel_color(sheet.data, at=(0.05, 0.05)), (255, 0, 0))
    assert _is_near(pixel_color(sheet.data, at=(0.95, 0.45)), (255, 0, 0))
    assert _is_near(pixel_color(sheet.data, at=(0.05, 0.55)), (0, 0, 255))
    assert _is_near(pixel_color(sheet.data, at=(0.95, 0.95)), (0, 0, 255))
    assert (run(first_frame(content)), run(sprite_sheet(content))) == (frame, sheet)


@pytest.mark.parametrize("make_preview", [first_frame, sprite_sheet])
def test_invalid_video_has_no_previews(make_preview: Callable[[IO[bytes]], Work[JpegImage]]) -> None:
    for data in (b"", make_audio(), VIDEO[:100]):
        with pytest.raises(InvalidMediaError):
            run(make_preview(io.BytesIO(data)))


def test_sprite_sheet_of_a_video_with_fewer_frames_than_tiles() -> None:
    sheet = run(sprite_sheet(io.BytesIO(make_video("lime", seconds=1))))
    assert _is_near(pixel_color(sheet.data, at=(0.95, 0.95)), (0, 255, 0))


def _is_near(colour: tuple[int, int, int], expected: tuple[int, int, int]) -> bool:
    return all(abs(a - b) < 40 for a, b in zip(colour, expected, strict=True))
