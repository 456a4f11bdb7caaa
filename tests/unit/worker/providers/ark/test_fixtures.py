"""Every recorded payload of Ark is parsed, and every request in them is what we build."""

import json
from pathlib import Path
from typing import Any

import pytest

from worker.core.errors import DreameryError
from worker.providers.ark.error_codes import Action, rule_for
from worker.providers.ark.image_requests import ImageCall, build_image_body
from worker.providers.ark.image_stream import StreamCompleted, StreamedImage, StreamFailed, parse_events
from worker.providers.ark.models import built_in_models
from worker.providers.ark.recovery_keys import AttemptKeys
from worker.providers.ark.responses import (
    TaskStatus,
    UnreadableError,
    parse_error,
    parse_images,
    parse_task,
    parse_task_page,
)
from worker.providers.ark.video_requests import Input, VideoCall, build_video_body

FIXTURES = Path(__file__).parents[4] / "fixtures" / "ark"
KEYS = AttemptKeys("6f1ed002ab5595859014ebf0951522d9c0ffee00", "k3Jx9QmT2vLz8RbN4wYd", 151337)
CALLBACK = "https://dreamery.example/hooks/ark/k3Jx9QmT2vLz8RbN4wYd"
# A link of a clip, and the frames and sounds that the recorded requests name.
_KINDS = {"image_url": "image", "video_url": "video", "audio_url": "audio"}


def names(prefix: str) -> list[str]:
    return sorted(path.stem for path in FIXTURES.glob(f"{prefix}*.json"))


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text())
    return content


def answer(name: str) -> Any:
    return load(name)["response"]["body"]


# ---- requests


@pytest.mark.parametrize("name", [*names("image-"), *names("stream-")])
def test_image_request(name: str) -> None:
    body = load(name)["request"]["body"]
    model = built_in_models().find_image(body["model"])
    assert model is not None
    images = body.get("image", [])
    call = ImageCall(
        model=model,
        model_id=body["model"],
        prompt=body["prompt"],
        size=body["size"],
        images=(images,) if isinstance(images, str) else tuple(images),
        output_format=body.get("output_format"),
        background=body.get("background"),
        layers=body.get("layer_decomposition", False),
        max_images=body.get("sequential_image_generation_options", {}).get("max_images", 1),
        stream=body.get("stream", False),
        web_search="tools" in body,
    )
    built = build_image_body(call)
    # Results always come as links, also where others asked for base64.
    assert built == body | {"response_format": "url"}


def mode_of(body: dict[str, Any]) -> str:
    roles = [item.get("role") for item in body["content"] if "role" in item]
    if body["content"][0]["type"] == "draft_task":
        return "final"
    if body.get("draft"):
        return "draft"
    if task_type := body.get("omni_reference_task_type"):
        return str(task_type)
    if roles == ["first_frame"]:
        return "first"
    if roles == ["first_frame", "last_frame"]:
        return "first_last"
    return "reference" if roles else "text"


@pytest.mark.parametrize("name", names("video-create-"))
def test_video_request(name: str) -> None:
    body = load(name)["request"]["body"]
    model = built_in_models().find_video(body["model"])
    assert model is not None
    content = body["content"]
    call = VideoCall(
        model=model,
        model_id=body["model"],
        mode=mode_of(body),
        keys=KEYS,
        resolution=body["resolution"],
        prompt=next((item["text"] for item in content if item["type"] == "text"), ""),
        ratio=body.get("ratio", "adaptive"),
        seconds=body.get("duration", 5),
        inputs=tuple(
            Input(_KINDS[item["type"]], item[item["type"]]["url"]) for item in content if item["type"] in _KINDS
        ),
        draft_of=next((item["draft_task"]["id"] for item in content if item["type"] == "draft_task"), None),
        generate_audio=body.get("generate_audio", False),
        seed=body.get("seed"),
        camera_fixed=body.get("camera_fixed"),
        return_last_frame=body.get("return_last_frame", False),
        flex=body.get("service_tier") == "flex",
        priority=body.get("priority"),
        web_search="tools" in body,
        callback_url=CALLBACK,
    )
    assert build_video_body(call) == body


def video_call(model_name: str, **values: Any) -> VideoCall:
    model = built_in_models().videos[model_name]
    fields = {"model": model, "model_id": "m", "mode": "text", "keys": KEYS, "resolution": "720p", "ratio": "16:9"}
    return VideoCall(**{**fields, **values})


@pytest.mark.parametrize(
    ("model", "values", "code", "param"),
    [
        ("seedance-2.0", {"seed": 3, "camera_fixed": True}, "unsupported_parameter", "camera_fixed"),
        ("seedance-2.0", {"flex": True}, "unsupported_parameter", "service_tier"),
        ("seedance-2.0", {"output_format": "mov"}, "unsupported_parameter", "output_format"),
        ("seedance-1.0-pro", {"priority": 3}, "unsupported_parameter", "priority"),
        ("seedance-1.0-pro", {"web_search": True}, "unsupported_parameter", "tools"),
        ("seedance-1.0-pro", {"mode": "reference"}, "invalid_parameters", None),
        ("seedance-1.0-pro", {"ratio": "adaptive"}, "invalid_parameters", None),
        ("seedance-2.0", {"seconds": 3}, "invalid_parameters", None),
        ("seedance-2.0", {"seconds": 16}, "invalid_parameters", None),
        ("seedance-2.0", {"mode": "draft"}, "invalid_parameters", None),
        ("seedance-2.0", {"mode": "first"}, "invalid_parameters", None),
        ("seedance-2.0", {"mode": "first", "inputs": (Input("video", "https://a/b"),)}, "invalid_parameters", None),
        (
            "seedance-2.0",
            {"mode": "reference", "inputs": (Input("video", "data:video/mp4;base64,AA"),)},
            "invalid_video",
            None,
        ),
    ],
)
def test_video_request_that_the_model_cannot_do(
    model: str, values: dict[str, Any], code: str, param: str | None
) -> None:
    with pytest.raises(DreameryError) as caught:
        build_video_body(video_call(model, **values))
    assert (caught.value.code, caught.value.param) == (code, param)


@pytest.mark.parametrize(
    ("model", "values", "param"),
    [
        ("seedream-5.0-pro", {"max_images": 2}, "sequential_image_generation"),
        ("seedream-5.0-flash", {"stream": True}, "stream"),
        ("seedream-4.5", {"output_format": "png"}, "output_format"),
        ("seedream-4.5", {"background": "transparent"}, "background"),
        ("seedream-5.0-lite", {"layers": True}, "layer_decomposition"),
        ("seedream-5.5", {"web_search": True}, "tools"),
        ("seedream-5.5", {"seed": 1}, "seed"),
    ],
)
def test_image_request_that_the_model_cannot_do(model: str, values: dict[str, Any], param: str) -> None:
    call = ImageCall(model=built_in_models().images[model], model_id="m", prompt="p", size="2K", **values)
    with pytest.raises(DreameryError) as caught:
        build_image_body(call)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", param)


def test_seed_that_a_model_obeys_without_saying_so() -> None:
    call = ImageCall(model=built_in_models().images["seedream-5.0-flash"], model_id="m", prompt="p", size="2K", seed=7)
    assert build_image_body(call)["seed"] == 7


# ---- answers


@pytest.mark.parametrize("name", names("image-"))
def test_images_are_read(name: str) -> None:
    read = parse_images(answer(name))
    assert (read.error is not None) == (name == "image-nothing")
    assert read.created_at == 1795900000
    assert all(item.error or item.url or item.base64 for item in read.items)
    assert all(item.width and item.height for item in read.items if item.url)


def test_images_of_a_set_and_of_layers() -> None:
    partial = parse_images(answer("image-set-partial"))
    assert [item.error is None for item in partial.items] == [True, False, True]
    assert partial.items[1].error is not None
    assert partial.items[1].error.code == "OutputImageSensitiveContentDetected"
    assert partial.generated == 2
    without_usage = {name: value for name, value in answer("image-set-partial").items() if name != "usage"}
    assert parse_images(without_usage).generated == 2, "a refused image is not charged"
    layers = [item.layer for item in parse_images(answer("image-layers")).items]
    assert [(layer.index, layer.name) for layer in layers if layer] == [(0, ""), (1, "boat"), (2, "clouds")]
    assert layers[1] is not None
    assert layers[1].box == (190, 400, 830, 820)
    assert parse_images(answer("image-class-size")).items[0].width is not None


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("video-get-queued", TaskStatus.QUEUED),
        ("video-get-running", TaskStatus.RUNNING),
        ("video-get-succeeded", TaskStatus.SUCCEEDED),
        ("video-get-succeeded-adaptive", TaskStatus.SUCCEEDED),
        ("video-get-succeeded-clip", TaskStatus.SUCCEEDED),
        ("video-get-succeeded-last-frame", TaskStatus.SUCCEEDED),
        ("video-get-draft", TaskStatus.SUCCEEDED),
        ("video-get-final", TaskStatus.SUCCEEDED),
        ("video-get-failed-content", TaskStatus.FAILED),
        ("video-get-failed-internal", TaskStatus.FAILED),
        ("video-get-failed-tasktype", TaskStatus.FAILED),
        ("video-get-expired", TaskStatus.EXPIRED),
        ("video-get-cancelled", TaskStatus.CANCELLED),
    ],
)
def test_task_is_read(name: str, status: TaskStatus) -> None:
    task = parse_task(answer(name))
    assert task.status is status
    assert (task.video_url is not None and task.tokens is not None) == (status is TaskStatus.SUCCEEDED)
    assert (task.error is not None) == (status is TaskStatus.FAILED)
    assert task.safety_identifier == KEYS.safety_identifier
    assert task.expires_after == KEYS.expires_after


def test_all_task_fixtures_are_covered() -> None:
    covered = {mark.args[1][n][0] for mark in test_task_is_read.pytestmark for n in range(len(mark.args[1]))}  # type: ignore[attr-defined]
    assert covered | {"video-get-gone"} == set(names("video-get-"))


def test_details_of_tasks() -> None:
    assert parse_task(answer("video-get-succeeded-last-frame")).last_frame_url
    assert parse_task(answer("video-get-succeeded-adaptive")).ratio == "5:4"
    assert parse_task(answer("video-get-draft")).draft
    assert parse_task(answer("video-get-final")).draft_of == "cgt-20261130111111-dr4ft"
    assert parse_task({"id": "x", "frames": 121}).seconds == 5
    assert parse_task({"id": "x", "status": "dreaming"}).status is TaskStatus.OTHER


def test_lists_are_read() -> None:
    assert len(parse_task_page(answer("video-list-ids")).tasks) == 3
    assert parse_task_page(answer("video-list-empty")).tasks == ()
    [old] = parse_task_page(answer("video-list-old-shape")).tasks
    assert old.error is not None
    assert old.error.code == "InternalServiceError"


@pytest.mark.parametrize("body", [None, [], "x", 3, {}, {"id": ""}, {"id": None}])
def test_bodies_that_are_no_task(body: Any) -> None:
    with pytest.raises(UnreadableError):
        parse_task(body)


@pytest.mark.parametrize("body", [None, [], "x", {"data": {}}, {"data": 3}])
def test_bodies_that_are_no_images(body: Any) -> None:
    with pytest.raises(UnreadableError):
        parse_images(body)


@pytest.mark.parametrize("name", ["callback-queued", "callback-succeeded", "callback-failed"])
def test_callback_holds_a_task(name: str) -> None:
    assert parse_task(load(name)["request"]["body"]).id == "cgt-20261130101010-ab1cd"


# ---- streams


def stream(name: str) -> list[Any]:
    return list(parse_events((FIXTURES / f"{name}.sse.txt").read_text().splitlines()))


def test_stream_to_its_end() -> None:
    *images, end = stream("stream-ok")
    assert [event.index for event in images if isinstance(event, StreamedImage)] == [0, 1, 2]
    assert isinstance(end, StreamCompleted)
    assert end.answer.generated == 3


def test_stream_with_a_refused_image() -> None:
    *images, end = stream("stream-one-refused")
    assert [event.item.error is None for event in images] == [True, False, True]
    assert isinstance(end, StreamCompleted)
    assert end.answer.generated == 2


def test_stream_that_is_cut_has_no_end() -> None:
    events = stream("stream-cut")
    assert events
    assert all(isinstance(event, StreamedImage) for event in events)


def test_stream_that_fails() -> None:
    [failed] = stream("stream-error")
    assert isinstance(failed, StreamFailed)
    assert failed.error.code == "InternalServiceError"


# ---- errors


@pytest.mark.parametrize(
    ("name", "action", "code"),
    [
        ("error-400-clip-base64", Action.FIX, "invalid_video"),
        ("error-400-clip-too-long", Action.FIX, "invalid_video"),
        ("error-400-flex", Action.FIX, "unsupported_parameter"),
        ("error-400-image-output-refused", Action.FIX, "content_policy_violation"),
        ("error-400-missing", Action.FIX, "missing_required_parameter"),
        ("error-400-mixed-modes", Action.FIX, "invalid_parameters"),
        ("error-400-picture-link", Action.FIX, "invalid_image"),
        ("error-400-real-face", Action.FIX, "content_policy_violation"),
        ("error-400-role", Action.FIX, "invalid_parameters"),
        ("error-400-task-type", Action.FIX, "invalid_parameters"),
        ("error-400-text-refused", Action.FIX, "content_policy_violation"),
        ("error-401-account-status", Action.STOP_ACCOUNT, "accounts_blocked"),
        ("error-401-authentication", Action.STOP_ACCOUNT, "accounts_need_login"),
        ("error-403-access-denied", Action.CLOSE_PAIR, "no_account_available"),
        ("error-403-overdue", Action.STOP_ACCOUNT, "insufficient_quota"),
        ("error-404-model-id-disabled", Action.CLOSE_PAIR, "model_not_found"),
        ("error-404-model-not-open", Action.CLOSE_PAIR, "no_account_available"),
        ("error-404-model-unknown", Action.CLOSE_PAIR, "model_not_found"),
        ("error-429-burst", Action.WAIT_PAIR, "rate_limit_exceeded"),
        ("error-429-free-trial", Action.CLOSE_PAIR, "insufficient_quota"),
        ("error-429-ipm", Action.WAIT_PAIR, "rate_limit_exceeded"),
        ("error-429-overloaded", Action.WAIT_PAIR, "upstream_error"),
        ("error-429-queue-full", Action.WAIT_PAIR, "rate_limit_exceeded"),
        ("error-429-rpm", Action.WAIT_PAIR, "rate_limit_exceeded"),
        ("error-429-spending-stop", Action.CLOSE_PAIR, "insufficient_quota"),
        ("error-500-internal", Action.AGAIN, "upstream_error"),
        ("video-get-gone", Action.AGAIN, "result_unavailable"),
        ("video-delete-running", Action.IGNORE, ""),
    ],
)
def test_errors_have_rules(name: str, action: Action, code: str) -> None:
    response = load(name)["response"]
    error = parse_error(response["body"])
    assert error is not None
    rule = rule_for(error, status=response["status"])
    assert (rule.action, rule.error) == (action, code)


def test_all_error_fixtures_are_covered() -> None:
    covered = {row[0] for mark in test_errors_have_rules.pytestmark for row in mark.args[1]}  # type: ignore[attr-defined]
    assert set(names("error-")) <= covered


@pytest.mark.parametrize(
    ("status", "action"),
    [
        (400, Action.FIX),
        (401, Action.STOP_ACCOUNT),
        (403, Action.CLOSE_PAIR),
        (404, Action.CLOSE_PAIR),
        (429, Action.WAIT_PAIR),
        (500, Action.AGAIN),
        (0, Action.AGAIN),
    ],
)
def test_unknown_codes_go_by_their_status(status: int, action: Action) -> None:
    error = parse_error({"error": {"code": "SomethingNew", "message": "x"}})
    assert error is not None
    assert rule_for(error, status=status).action is action


@pytest.mark.parametrize(
    "body", [None, "x", [], {}, {"error": None}, {"error": {"message": "x"}}, {"error": {"code": 3}}]
)
def test_bodies_without_a_named_error(body: Any) -> None:
    assert parse_error(body) is None


def test_request_id_is_read_from_the_message() -> None:
    response = load("error-500-internal")["response"]
    error = parse_error(response["body"])
    assert error is not None
    assert error.request_id == response["headers"]["x-request-id"]
