"""Accepted forms of image inputs, and errors of invalid ones."""

import asyncio
import base64
from typing import Any

import pytest

from api.generation.media import values as media_values
from api.generation.media.reference_images import ReferenceImage, check_image_count
from api.generation.media.reference_media import read_input
from api.images.schemas import ImageGenerationRequest
from tests.support.uploads import make_image
from tests.unit.worker.core.media.test_image import bomb
from worker.core.catalog.models import get_catalog
from worker.core.errors import DreameryError

RED = make_image("red")
B64 = base64.b64encode(RED).decode()
LINK = "https://example.org/a.png"


def read(model: str = "jimeng-4.0", **fields: Any) -> list[ReferenceImage]:
    entries = ImageGenerationRequest.model_validate({"prompt": "a boat", **fields}).media_inputs
    check_image_count(entries, get_catalog().image_model(model))
    images = [asyncio.run(read_input(entry, "user:x")) for entry in entries]
    assert all(isinstance(image, ReferenceImage) for image in images)
    return images  # type: ignore[return-value]


def error_message(code: str, param: str, *, model: str = "jimeng-4.0", **fields: Any) -> str:
    with pytest.raises(DreameryError) as caught:
        read(model, **fields)
    assert (caught.value.code, caught.value.param, caught.value.kind.status) == (code, param, 400)
    return caught.value.message


@pytest.mark.parametrize("wrap", [
    lambda v: v, lambda v: [v], lambda v: {"type": "image_url", "image_url": {"url": v}}, lambda v: {"image_url": v},
    lambda v: {"image_url": {"url": v, "detail": "high"}}, lambda v: [{"type": "input_image", "image_url": v}],
])  # fmt: skip
@pytest.mark.parametrize("value", [
    LINK, "HTTP://example.org:81/x?y=%20z", B64, f"data:image/png;base64,{B64}", f"DATA:;base64,{B64}",
    f"data:image/jpeg;charset=utf-8;base64,{B64}", B64.rstrip("="), "\n".join(B64[i : i + 76] for i in range(0, len(B64), 76)),
])  # fmt: skip
def test_every_input_form_is_accepted(wrap, value) -> None:
    [one] = read(image=wrap(value))
    if one.url is not None:
        assert (one.url, one.content, one.description) == (value, None, value)
    else:
        assert one.content is not None
        one.content.seek(0)
        assert (one.content.read(), one.size) == (RED, len(RED))
        assert isinstance(one.description, dict)
        assert {"mime": "image/png", "width": 8, "height": 8, "bytes": len(RED)}.items() <= one.description.items()


def test_image_and_images_are_combined_in_order() -> None:
    images = read(image=[LINK, B64], images=[f"{LINK}?2", {"image_url": f"{LINK}?3"}])
    assert [one.url for one in images] == [LINK, None, f"{LINK}?2", f"{LINK}?3"]


@pytest.mark.parametrize("fields", [{}, {"image": None}, {"image": "", "images": []}])
def test_absent_and_empty_fields_give_no_images(fields) -> None:
    assert read("jimeng-2.1", **fields) == []


@pytest.mark.parametrize("value", [
    "not base64!", "ftp://example.org/a.png", "file:///etc/passwd", "https://", "http://exa mple.org/", "https://[1",
    "https://example.org:99999/", "https://example.org/" + "a" * 9000, "https://example.org/\u0000", "data:image/png,abc",
    base64.b64encode(b"<html>").decode(), base64.b64encode(RED[:50]).decode(), "é", 5, True, {"file_id": 7},
    {"image_url": {"url": None}}, {}, None, "",
])  # fmt: skip
def test_invalid_image_error_names_its_entry(value) -> None:
    error_message("invalid_image", "images.1", images=[LINK, value])


def test_single_invalid_image_error_names_its_field() -> None:
    assert "example" not in error_message("invalid_image", "image", image="nonsense!")


def test_decompression_bombs_and_large_files_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "million pixels" in error_message(
        "invalid_image", "image", image=base64.b64encode(bomb(9000, 9000)).decode()
    )
    monkeypatch.setattr(media_values, "MAX_INPUT_BYTES", 1000)
    error_message("invalid_image", "image.0", image=[base64.b64encode(b"x" * 1001).decode()])
    error_message("invalid_image", "image.0", image=[base64.b64encode(b"x" * 9000).decode()])


def test_too_many_images_error_names_models_that_accept_them() -> None:
    message = error_message("invalid_value", "images", images=[LINK] * 11)
    assert "at most 10" in message
    assert "jimeng-aesthetic-8.2" in message
    assert "No model accepts that many" in error_message("invalid_value", "image", image=[LINK] * 20, images=[LINK])
    assert len(read(images=[LINK] * 10)) == 10


def test_text_only_model_error_names_models_with_references() -> None:
    message = error_message("unsupported_parameter", "image", image=LINK, model="jimeng-3.1")
    assert "jimeng-4.0" in message
    assert "jimeng-2.1" not in message
