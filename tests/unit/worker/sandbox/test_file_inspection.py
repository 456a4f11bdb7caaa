"""Inspection of uploaded bytes."""

import io

import pytest
from PIL import Image

from worker.sandbox.results.video_files import VideoDrawing, render_video
from worker.sandbox.uploads.file_inspection import inspect_image, inspect_media


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_image_facts(kind):
    out = io.BytesIO()
    Image.new("RGB", (2100, 30), (200, 10, 10)).save(out, kind)
    facts = inspect_image(out.getvalue())
    assert (facts.width, facts.height, facts.format) == (2100, 30, kind.lower())
    assert facts.size == len(out.getvalue())
    assert max(facts.thumbnail.open().size) <= 1024


@pytest.mark.parametrize("raw", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"0" * 40, b"\xff\xd8\xff\xe0"])
def test_unreadable_bytes_return_none(raw):
    assert inspect_image(raw) is None
    assert inspect_media(raw) is None


def test_video_facts():
    facts = inspect_media(render_video(VideoDrawing("a boat", 1, 320, 240, 2)))
    assert (facts.width, facts.height, facts.codec, facts.format) == (320, 240, "h264", "MP4")
    assert facts.seconds == pytest.approx(2.0, abs=0.05)
    assert facts.thumbnail.open().size == (320, 240)


def test_scaled_video_sizes_are_even():
    drawing = VideoDrawing("a boat", 1, 1280, 720, 5)
    assert (drawing.scaled(480).width, drawing.scaled(480).height) == (854, 480)
    assert drawing.scaled(4000) == drawing
