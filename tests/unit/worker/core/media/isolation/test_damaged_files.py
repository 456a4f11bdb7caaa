"""Damaged files of every accepted type: each is read or refused with our own error, never anything else."""

import io
import re
from functools import cache

import pillow_heif
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.media_files import (
    WEBP_BOMB,
    encode_image,
    make_audio,
    make_video,
    slow_jpeg,
    video_with_unknown_codec,
    wav_with_rate,
)
from worker.core.media import video
from worker.core.media.conversion import ConversionError, OutputFormat, conversion_work
from worker.core.media.image import MAX_INPUT_PIXELS, ImageInfo, InvalidImageError
from worker.core.media.image_header import read_image_header
from worker.core.media.image_structure import read_complete_image
from worker.core.media.isolation.client import run
from worker.core.media.isolation.image_work import REASONS
from worker.core.media.normalization import normalize_image
from worker.core.media.thumbnails import thumbnail_work
from worker.core.media.video import (
    InvalidMediaError,
    first_frame,
    inspect_audio,
    inspect_video,
    sprite_sheet,
)
from worker.core.media.video_limits import MAX_MILLISECONDS
from worker.core.messages.chinese import translate

pillow_heif.register_heif_opener()

IMAGES = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "ICO", "JPEG2000", "AVIF", "HEIF", "PPM", "ICNS")
VIDEOS = ("mp4", "mov", "webm")
AUDIO = {"mp3": "libmp3lame", "wav": "pcm_s16le", "ogg": "libopus", "flac": "flac", "adts": "aac", "ipod": "aac"}


def video_reasons() -> list[str]:
    return [text.format(what="audio file", track="audio") for text in video._REASONS.values()]


@cache
def whole(kind: str) -> bytes:
    if kind in VIDEOS:
        return make_video("red", "blue", seconds=1, kind=kind)
    if kind in AUDIO:
        return make_audio(kind=kind, codec=AUDIO[kind])
    # GPS, comments and profiles bring more parsers into play.
    exif = {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"}
    return encode_image(kind, (64, 64), **(exif if kind in {"PNG", "JPEG", "WEBP", "AVIF"} else {}))


Damage = tuple[float, float, list[tuple[float, int]]]
DAMAGE = st.tuples(
    st.floats(0, 1), st.sampled_from([0.0, 0.0, 0.1, 0.5]), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)))
)


def damaged(data: bytes, damage: Damage) -> io.BytesIO:
    """Return the bytes with some replaced, and a piece cut out or cut off at the end."""
    start, cut, bytes_to_set = damage
    content = bytearray(data)
    for place, value in bytes_to_set:
        # Headers are where the numbers are.
        content[int(place**3 * (len(content) - 1))] = value
    begin = int(start * len(content))
    end = len(content) if cut == 0.5 else begin + int(cut * len(content))
    del content[begin:end]
    return io.BytesIO(content)


@pytest.mark.parametrize("kind", IMAGES)
@settings(max_examples=12, deadline=None)
@given(damage=DAMAGE)
def test_damaged_image(kind: str, damage: Damage) -> None:
    content = damaged(whole(kind), damage)
    try:
        image = normalize_image(content)
    except InvalidImageError as error:
        assert str(error)  # noqa: PT017 - an unexpected type fails the test
    else:
        assert image.info.mime in {"image/png", "image/jpeg", "image/webp"}
        assert 0 < image.info.width * image.info.height <= MAX_INPUT_PIXELS
        image.content.close()


@pytest.mark.parametrize("kind", [*VIDEOS, *AUDIO])
@settings(max_examples=12, deadline=None)
@given(damage=DAMAGE)
def test_damaged_video_or_audio(kind: str, damage: Damage) -> None:
    content = damaged(whole(kind), damage)
    for inspect in (inspect_video, inspect_audio):
        try:
            facts = inspect(content)
        except InvalidMediaError as error:
            assert str(error)  # noqa: PT017
        else:
            assert 0 < facts.milliseconds <= MAX_MILLISECONDS


@pytest.mark.parametrize("kind", VIDEOS)
@settings(max_examples=6, deadline=None)
@given(damage=DAMAGE)
def test_previews_of_a_damaged_video(kind: str, damage: Damage) -> None:
    content = damaged(whole(kind), damage)
    for make in (first_frame, sprite_sheet):
        try:
            picture = run(make(content))
        except InvalidMediaError as error:
            assert str(error)  # noqa: PT017
        else:
            assert picture.data.startswith(b"\xff\xd8")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
@settings(max_examples=12, deadline=None)
@given(damage=DAMAGE)
def test_damaged_result(kind: str, damage: Damage) -> None:
    content = damaged(whole(kind), damage)
    try:
        assert isinstance(read_image_header(content), ImageInfo)
        assert run(thumbnail_work(content, side=32))
    except InvalidImageError as error:
        assert str(error)  # noqa: PT017
    try:
        run(conversion_work(content, OutputFormat("webp"))).close()
    except ConversionError as error:
        assert str(error)  # noqa: PT017


@settings(max_examples=300, deadline=None)
@given(data=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]), damage=DAMAGE)
@example(data="JPEG", damage=(0.001, 0.5, []))
def test_headers_and_structures_of_damaged_files(data: str, damage: Damage) -> None:
    content = damaged(whole(data), damage)
    for read in (read_image_header, read_complete_image):
        try:
            info = read(content)
        except InvalidImageError as error:
            assert str(error)  # noqa: PT017
        else:
            assert info.width > 0
            assert info.height > 0


def test_unknown_codec_is_named() -> None:
    with pytest.raises(InvalidMediaError, match="codec is not supported"):
        inspect_video(io.BytesIO(video_with_unknown_codec()))


@pytest.mark.parametrize(
    ("rate", "reason"), [(0, "damaged"), (1, "sample rate"), (999, "sample rate"), (2**31, "damaged")]
)
def test_impossible_sample_rate_is_refused(rate: int, reason: str) -> None:
    with pytest.raises(InvalidMediaError, match=reason):
        inspect_audio(io.BytesIO(wav_with_rate(rate)))


@pytest.mark.parametrize("word", [b"OggS", b"\xff\xfb\x90\x00", b"\xff\xf1\x50\x80", b"fLaC", b"ID3\x04"])
def test_endless_repetition_of_a_magic_number_is_refused(word: bytes) -> None:
    with pytest.raises(InvalidMediaError):
        inspect_audio(io.BytesIO(word * (4_000_000 // len(word))))


def test_picture_that_is_small_on_disk_and_large_in_memory_is_not_decoded() -> None:
    assert len(WEBP_BOMB) == 40
    image = normalize_image(io.BytesIO(WEBP_BOMB))
    assert image.info.width * image.info.height > 60_000_000
    assert image.adjusted == {}
    image.content.seek(0)
    assert image.content.read() == WEBP_BOMB


def test_turned_picture_of_too_many_parts_is_refused() -> None:
    with pytest.raises(InvalidImageError, match="damaged"):
        normalize_image(io.BytesIO(slow_jpeg(60_000, side=64, orientation=6)))


@pytest.mark.parametrize(
    "text", [*REASONS.values(), *video_reasons(), "too many files wait", "its process did not start"]
)
def test_every_reason_has_a_chinese_translation(text: str) -> None:
    assert re.search(r"[\u4e00-\u9fff]", translate(text) or ""), "add it to worker/core/messages/chinese.toml"
