"""Conversion of finished pictures: real formats, the same pixels, no foreign metadata."""

import io
import threading

import pytest
from PIL import Image, ImageCms

from worker.core.media.conversion import NotConvertedError, Output, convert
from worker.core.media.image import decoding

SIZE = (64, 48)


def drawn(mode: str = "RGB", form: str = "JPEG", **options) -> io.BytesIO:
    picture = Image.merge("RGB", [Image.effect_noise(SIZE, 60) for _ in range(3)]).convert(mode)
    if mode == "RGBA":
        picture.putalpha(Image.linear_gradient("L").resize(SIZE))
    content = io.BytesIO()
    picture.save(content, form, **options)
    return content


def made(content: io.BytesIO, form: str, compression: int | None = None) -> bytes:
    with convert(content, Output(form, compression), while_waiting=pytest.fail) as result:
        result.seek(0)
        return result.read()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("source", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(("form", "name"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_every_format_into_every_other(source, form, name):
    content = drawn(form=source)
    picture = opened(made(content, form))
    picture.load()
    assert (picture.format, picture.size, picture.mode) == (name, SIZE, "RGB")
    assert made(content, form) == made(content, form), "saving twice gives the same bytes"


def test_a_png_has_the_very_pixels(tmp_path):
    content = drawn()
    assert opened(made(content, "png")).tobytes() == Image.open(content).tobytes()


def test_transparency_stays_where_the_format_has_it_and_becomes_white_elsewhere():
    content = drawn("RGBA", "PNG")
    assert opened(made(content, "png")).tobytes() == Image.open(content).tobytes()
    assert opened(made(content, "webp")).mode == "RGBA"
    clear = io.BytesIO()
    Image.new("RGBA", SIZE, (255, 0, 0, 0)).save(clear, "PNG")
    assert opened(made(clear, "jpeg")).getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize(("mode", "form"), [("CMYK", "JPEG"), ("L", "PNG"), ("P", "PNG"), ("1", "PNG"), ("P", "GIF")])
def test_odd_modes_become_rgb(mode, form):
    assert opened(made(drawn(mode, form), "webp")).mode == "RGB"


def test_less_quality_is_less_bytes():
    content = drawn()
    for form in ("jpeg", "webp"):
        sizes = [len(made(content, form, level)) for level in (0, 50, 100)]
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[2]
    assert len(made(content, "jpeg")) == len(made(content, "jpeg", 95))


def test_the_colour_profile_is_kept_and_the_rest_is_not():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    exif[0x010E] = "a secret prompt"
    content = drawn(icc_profile=profile, exif=exif, comment=b"a secret remark")
    for form in ("png", "jpeg", "webp"):
        data = made(content, form)
        picture = opened(data)
        assert picture.info["icc_profile"] == profile
        assert b"secret" not in data
        assert not picture.getexif()
        assert picture.size == SIZE[::-1], "as it is meant to be seen"


@pytest.mark.parametrize("data", [b"", b"<html>", drawn().getvalue()[:300], drawn(form="PNG").getvalue()[:300]])
def test_what_is_no_whole_picture_is_refused(data):
    with pytest.raises(NotConvertedError):
        made(io.BytesIO(data), "webp")


def test_a_bomb_is_refused_before_it_is_decoded():
    content = io.BytesIO()
    Image.new("1", (16000, 5000)).save(content, "PNG")
    with pytest.raises(NotConvertedError, match="too many pixels"):
        made(content, "jpeg")


def test_who_waits_for_a_turn_says_so(monkeypatch):
    monkeypatch.setattr("worker.core.media.conversion._TURN_SECONDS", 0.01)
    waited = threading.Event()
    with decoding, decoding:
        results = []

        def run():
            with convert(drawn(), Output("png"), while_waiting=waited.set):
                results.append("done")

        thread = threading.Thread(target=run)
        thread.start()
        assert waited.wait(10)
        assert not results
    thread.join(10)
    assert results == ["done"]


def test_what_a_job_asks_for():
    assert Output.of({}) is None
    assert Output.of({"output": {}}) is None
    wanted = Output("webp", 40)
    assert Output.of({"output": wanted.as_params()}) == wanted
    assert not wanted.is_met_by("image/webp")
    assert Output("webp").is_met_by("image/webp")
    assert not Output("png").is_met_by("image/jpeg")
