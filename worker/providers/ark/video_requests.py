"""Builds the body of `POST /contents/generations/tasks`. Only fields that the data lists for a model are sent.

Resolution, ratio, duration and watermark are always sent, because the vendor's defaults differ between models.
"""

from dataclasses import dataclass
from typing import Any

from worker.core.errors import DreameryError
from worker.providers.ark.image_requests import require_field, unsupported
from worker.providers.ark.models import VideoModel
from worker.providers.ark.recovery_keys import AttemptKeys

AUTO_SECONDS = -1
ADAPTIVE = "adaptive"
_REFERENCE_MODES = {"reference", "edit", "extend"}


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a video by kind (image, video, audio). `url` = a link or a data URL (not for videos)."""

    kind: str
    url: str


@dataclass(frozen=True, slots=True)
class VideoCall:
    """One video. `model_id` = the vendor's id or an endpoint of the account; `mode` = one of `VideoModel.modes`.

    `inputs` = the first frame, or the first and the last one, or the references in their order. `draft_of` = the task
    id of the draft that a final is made from. None = not requested.
    """

    model: VideoModel
    model_id: str
    mode: str
    keys: AttemptKeys
    resolution: str
    prompt: str = ""
    ratio: str = ADAPTIVE
    seconds: int = 5
    inputs: tuple[Input, ...] = ()
    draft_of: str | None = None
    generate_audio: bool = True
    seed: int | None = None
    camera_fixed: bool | None = None
    return_last_frame: bool = False
    output_format: str | None = None
    flex: bool = False
    priority: int | None = None
    web_search: bool = False
    callback_url: str | None = None


def build_video_body(call: VideoCall) -> dict[str, Any]:
    """Return the body. Raises `unsupported_parameter` or `invalid_parameters` for what the model cannot do."""
    if call.mode not in call.model.modes:
        raise _cannot(call, f"cannot make a video this way ({call.mode})")
    body: dict[str, Any] = {"model": call.model_id, "content": _content(call), "resolution": call.resolution}
    if call.mode != "final":
        body |= _own_values(call)
    body |= _optional(call)
    body["watermark"] = False  # the vendor's default is true for some models
    body["safety_identifier"] = call.keys.safety_identifier
    body["execution_expires_after"] = call.keys.expires_after
    if call.callback_url is not None:
        body["callback_url"] = call.callback_url
    return body


def _own_values(call: VideoCall) -> dict[str, Any]:
    """Return what a final takes from its draft and a video of its own says itself."""
    model = call.model
    ratio = ADAPTIVE if call.mode in model.adaptive_only else call.ratio
    seconds = AUTO_SECONDS if call.mode == "edit" else call.seconds
    if ratio not in model.ratios:
        raise _cannot(call, f"does not make the ratio {ratio}")
    if seconds != AUTO_SECONDS and not model.min_seconds <= seconds <= model.max_seconds:
        raise _cannot(call, f"makes {model.min_seconds} to {model.max_seconds} seconds")
    values: dict[str, Any] = {"ratio": ratio, "duration": seconds}
    if call.mode in {"edit", "extend"}:
        require_field(model.id, model.fields, "omni_reference_task_type")
        values["omni_reference_task_type"] = call.mode
    if call.mode == "draft":
        require_field(model.id, model.fields, "draft")
        values["draft"] = True
    if "generate_audio" in model.fields:
        values["generate_audio"] = call.generate_audio
    elif call.generate_audio and model.makes_audio:
        raise unsupported(model.id, "generate_audio")
    return values


def _optional(call: VideoCall) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        "seed": call.seed,
        "camera_fixed": call.camera_fixed,
        "return_last_frame": call.return_last_frame or None,
        "output_format": call.output_format,
        "service_tier": "flex" if call.flex else None,
        "priority": call.priority,
        "tools": [{"type": "web_search"}] if call.web_search else None,
    }
    used = {name: value for name, value in wanted.items() if value is not None}
    for name in used:
        if name != "seed" or call.model.seed == "none":
            require_field(call.model.id, call.model.fields, name)
    return used


def _content(call: VideoCall) -> list[dict[str, Any]]:
    if call.mode == "final":
        return [{"type": "draft_task", "draft_task": {"id": call.draft_of}}]
    text = [{"type": "text", "text": call.prompt}] if call.prompt else []
    return [*text, *(_input(one, role) for one, role in zip(call.inputs, _roles(call), strict=True))]


def _roles(call: VideoCall) -> list[str]:
    """Return the role of each input. Upstream refuses inputs without one."""
    if call.mode in _REFERENCE_MODES:
        return [f"reference_{one.kind}" for one in call.inputs]
    expected = {"first": ["first_frame"], "first_last": ["first_frame", "last_frame"]}.get(call.mode, [])
    if len(expected) != len(call.inputs) or any(one.kind != "image" for one in call.inputs):
        if call.mode == "draft" and call.inputs:
            return [f"reference_{one.kind}" for one in call.inputs]
        raise _cannot(call, f"takes {len(expected)} images this way ({call.mode})")
    return expected


def _input(one: Input, role: str) -> dict[str, Any]:
    if one.kind == "video" and one.url.startswith("data:"):
        raise DreameryError("invalid_video", "This upstream takes videos by their link only.")
    field = f"{one.kind}_url"
    return {"type": field, field: {"url": one.url}, "role": role}


def _cannot(call: VideoCall, what: str) -> DreameryError:
    return DreameryError("invalid_parameters", f"Model {call.model.id!r} {what}.")
