"""What is read from uploaded bytes."""

import io

import pytest
from PIL import Image

from worker.sandbox.results.video_files import Clip, film
from worker.sandbox.uploads.file_inspection import examine_media, examine_picture


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_facts_of_pictures(kind):
    out = io.BytesIO()
    Image.new("RGB", (2100, 30), (200, 10, 10)).save(out, kind)
    facts = examine_picture(out.getvalue())
    assert (facts.width, facts.height, facts.format) == (2100, 30, kind.lower())
    assert facts.size == len(out.getvalue())
    assert max(facts.thumb.open().size) <= 1024


@pytest.mark.parametrize("raw", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"0" * 40, b"\xff\xd8\xff\xe0"])
def test_what_is_no_picture_and_no_video(raw):
    assert examine_picture(raw) is None
    assert examine_media(raw) is None


def test_facts_of_videos():
    facts = examine_media(film(Clip("a boat", 1, 320, 240, 2)))
    assert (facts.width, facts.height, facts.codec, facts.format) == (320, 240, "h264", "MP4")
    assert facts.seconds == pytest.approx(2.0, abs=0.05)
    assert facts.thumb.open().size == (320, 240)


def test_sizes_of_a_ladder_are_even():
    clip = Clip("a boat", 1, 1280, 720, 5)
    assert (clip.scaled(480).width, clip.scaled(480).height) == (854, 480)
    assert clip.scaled(4000) == clip
