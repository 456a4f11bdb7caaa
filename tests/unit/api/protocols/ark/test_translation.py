"""Bodies of the vendor's clients as fields of our own calls."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from api.protocols.ark.schemas import ArkImageRequest, ArkVideoRequest
from api.protocols.ark.translation import image_fields, parse_task_id, sent_names, video_fields
from worker.core.errors import DreameryError

FIXTURES = Path(__file__).parents[4] / "fixtures" / "ark"
IMAGE = {"model": "dola-seedream-5-0-flash-260915", "prompt": "a boat", "n": 1}
SETS = {"model": "seedream-4-5-251128", "prompt": "boats", "sequential_image_generation": "auto"}
TEXT = [{"type": "text", "text": "waves"}]
VIDEO = {"model": "dreamina-seedance-2-0-260128", "content": TEXT}


def of_image(**fields: Any) -> dict[str, Any]:
    return image_fields(ArkImageRequest.model_validate({"model": IMAGE["model"], "prompt": IMAGE["prompt"], **fields}))


def of_video(**fields: Any) -> dict[str, Any]:
    return video_fields(ArkVideoRequest.model_validate({**VIDEO, **fields}))


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("image-*.json")), ids=lambda path: path.stem)
def test_every_recorded_image_request_is_read(path: Path) -> None:
    body = json.loads(path.read_text())["request"]["body"]
    fields = image_fields(ArkImageRequest.model_validate(body))
    assert fields["prompt"] == body["prompt"]
    assert "watermark" not in fields


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("video-create-*.json")), ids=lambda path: path.stem)
def test_every_recorded_video_request_is_read(path: Path) -> None:
    body = json.loads(path.read_text())["request"]["body"]
    for item in body["content"]:
        if item["type"] == "draft_task":
            item["draft_task"]["id"] = f"cgt-{UUID(int=7).hex}"
    body.pop("callback_url")
    fields = video_fields(ArkVideoRequest.model_validate(body))
    assert fields["model"] == body["model"]
    assert fields["user"] == body["safety_identifier"]
    assert not {"watermark", "safety_identifier", "execution_expires_after"} & fields.keys()


def test_fields_that_the_libraries_send_as_null_count_as_absent() -> None:
    assert of_image(image=None, seed=None, stream=None, tools=None, sequential_image_generation=None) == IMAGE
    assert of_video(seed=None, draft=None, tools=None, frames=None, callback_url=None) == VIDEO


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("2K", {"size": "auto", "resolution": "2k"}),
        ("1.5K", {"size": "auto", "resolution": "1.5k"}),
        ("2048x1024", {"size": "2048x1024"}),
        (None, {}),
    ],
)
def test_class_leaves_the_ratio_to_the_model(size: str | None, expected: dict[str, str]) -> None:
    assert of_image(size=size) == {**IMAGE, **expected}


def test_errors_of_a_class_name_the_field_that_has_it() -> None:
    assert sent_names(of_image=True)["resolution"] == "size"
    assert "resolution" not in sent_names(of_image=False)


def test_neutral_values_are_left_out() -> None:
    neutral = {
        "seed": -1,
        "background": "auto",
        "layer_decomposition": False,
        "sequential_image_generation": "disabled",
    }
    assert of_image(**neutral) == IMAGE
    neutral = {"seed": -1, "service_tier": "default", "priority": 0, "omni_reference_task_type": "auto", "draft": False}
    assert of_video(**neutral, output_format="mp4", camera_fixed=False) == VIDEO


def test_fields_have_our_names() -> None:
    tools = [{"type": "web_search"}]
    found = of_image(layer_decomposition=True, background="transparent", tools=tools, seed=4, output_format="png")
    assert found == {
        **IMAGE,
        "layers": True,
        "background": "transparent",
        "web_search": True,
        "seed": 4,
        "output_format": "png",
    }
    found = of_video(omni_reference_task_type="edit", tools=tools, generate_audio=False, return_last_frame=True)
    assert found == {
        **VIDEO,
        "task_type": "edit",
        "web_search": True,
        "generate_audio": False,
        "return_last_frame": True,
    }


def test_set_is_one_call_where_the_model_makes_sets_and_single_images_elsewhere() -> None:
    options = {"sequential_image_generation_options": {"max_images": 3}}
    found = image_fields(ArkImageRequest.model_validate({**SETS, **options}))
    assert (found["series"], found["n"]) == (True, 3)
    assert image_fields(ArkImageRequest.model_validate(SETS))["n"] == 15
    found = image_fields(ArkImageRequest.model_validate({**SETS, **options, "model": "jimeng-4.0"}))
    assert (found.get("series"), found["n"]) == (None, 3)


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"n": 2}, "n"), ({"quality": "hd"}, "quality"), ({"guidance_scale": 3}, "guidance_scale")],
)
def test_fields_that_upstream_does_not_have_are_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(DreameryError) as raised:
        of_image(**fields)
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", param)


def test_frames_and_unknown_fields_of_videos_are_refused() -> None:
    for fields in ({"frames": 29}, {"negative_prompt": "people"}, {"callback_url": "https://a.example/"}):
        with pytest.raises(DreameryError) as raised:
            of_video(**fields)
        assert raised.value.code == "unsupported_parameter"


def test_draft_is_the_only_item_of_its_final() -> None:
    item = {"type": "draft_task", "draft_task": {"id": f"cgt-{UUID(int=7).hex}"}}
    found = of_video(content=[item], resolution="1080p")
    assert found == {"model": VIDEO["model"], "draft_of": f"job_{UUID(int=7).hex}", "resolution": "1080p"}
    for content in ([item, *TEXT], [item, item], [{"type": "draft_task"}], [{**item, "draft_task": {"id": "cgt-1"}}]):
        with pytest.raises(DreameryError) as raised:
            of_video(content=content)
        assert raised.value.code == "invalid_value"


@pytest.mark.parametrize(
    "fields", [{"priority": 10}, {"execution_expires_after": 60}, {"content": []}, {"tools": [{"type": "code"}]}]
)
def test_values_out_of_range_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        of_video(**fields)


def test_task_ids() -> None:
    digits = UUID(int=7).hex
    assert [parse_task_id(f"{prefix}{digits}") for prefix in ("cgt-", "job_", "video_")] == [UUID(int=7)] * 3
    assert [parse_task_id(text) for text in ("cgt-20261130-ab1cd", digits, f"cgt-{digits}0", "")] == [None] * 4
