"""Videos and sounds judged by their bytes, and the pictures made of a video."""

import io
from collections.abc import Callable

import pytest

from tests.support.media_files import make_audio, make_video, pixel_color
from worker.core.media.video import NotAClipError, first_frame, sound_facts, sprite_sheet, video_facts

FILM = make_video("red", "blue", seconds=4)


@pytest.mark.parametrize(
    ("kind", "mime", "extension"),
    [("mp4", "video/mp4", "mp4"), ("mov", "video/quicktime", "mov"), ("webm", "video/webm", "webm")],
)
def test_a_video_is_what_its_bytes_are(kind: str, mime: str, extension: str) -> None:
    facts = video_facts(io.BytesIO(make_video("red", seconds=2, kind=kind)))
    assert (facts.mime, facts.extension, facts.width, facts.height) == (mime, extension, 64, 64)
    assert abs(facts.milliseconds - 2000) <= 130


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
def test_a_sound_is_what_its_bytes_are(kind: str, codec: str, mime: str, extension: str) -> None:
    facts = sound_facts(io.BytesIO(make_audio(seconds=1.5, kind=kind, codec=codec)))
    assert (facts.mime, facts.extension, facts.width) == (mime, extension, None)
    assert 1400 <= facts.milliseconds <= 1700


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"#EXTM3U\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        FILM[:40],
        FILM[: len(FILM) // 2],
        b"\x00\x00\x00\x18ftypisom" + b"\x00" * 500,
        make_audio(),
        make_audio(kind="ipod", codec="aac"),
    ],
)
def test_what_is_no_whole_video_is_refused(data: bytes) -> None:
    with pytest.raises(NotAClipError):
        video_facts(io.BytesIO(data))


@pytest.mark.parametrize("lost", [20, 200, 1000])
def test_a_video_whose_end_is_missing_is_refused(lost: int) -> None:
    fast = _with_index_in_front()
    video_facts(io.BytesIO(fast))
    with pytest.raises(NotAClipError, match="cut off"):
        video_facts(io.BytesIO(fast[:-lost]))


def _with_index_in_front() -> bytes:
    """The sandbox's videos begin with their index, so that a cut file still opens."""
    from worker.sandbox.results.video_files import VideoDrawing, render_video

    return render_video(VideoDrawing(text="x", colour=1, width=320, height=240, seconds=2))


@pytest.mark.parametrize("data", [b"", b"ID3", b"RIFF1234WAVE", FILM, b"\xff\xfb" + b"\x00" * 50])
def test_what_is_no_sound_is_refused(data: bytes) -> None:
    with pytest.raises(NotAClipError):
        sound_facts(io.BytesIO(data))


def test_the_first_frame_and_the_sheet_show_the_film_and_are_the_same_every_time() -> None:
    content = io.BytesIO(FILM)
    still, sheet = first_frame(content), sprite_sheet(content)
    assert (still.width, still.height) == (64, 64)
    assert _near(pixel_color(still.data), (255, 0, 0))
    assert (sheet.width, sheet.height) == (4 * 240, 4 * 240)
    # Four rows of four: the first half of the film is red, the second blue.
    assert _near(pixel_color(sheet.data, at=(0.05, 0.05)), (255, 0, 0))
    assert _near(pixel_color(sheet.data, at=(0.95, 0.45)), (255, 0, 0))
    assert _near(pixel_color(sheet.data, at=(0.05, 0.55)), (0, 0, 255))
    assert _near(pixel_color(sheet.data, at=(0.95, 0.95)), (0, 0, 255))
    assert (first_frame(content), sprite_sheet(content)) == (still, sheet)


@pytest.mark.parametrize("act", [first_frame, sprite_sheet])
def test_no_pictures_of_what_is_no_video(act: Callable[[io.BytesIO], object]) -> None:
    for data in (b"", make_audio(), FILM[:100]):
        with pytest.raises(NotAClipError):
            act(io.BytesIO(data))


def test_a_video_of_fewer_frames_than_tiles_has_a_sheet_too() -> None:
    sheet = sprite_sheet(io.BytesIO(make_video("lime", seconds=1)))
    assert _near(pixel_color(sheet.data, at=(0.95, 0.95)), (0, 255, 0))


def _near(colour: tuple[int, int, int], wanted: tuple[int, int, int]) -> bool:
    return all(abs(a - b) < 40 for a, b in zip(colour, wanted, strict=True))
