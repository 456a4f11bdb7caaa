"""Translates the vendor's request bodies into the fields of our own calls, which check and plan them."""

import re
from typing import Any
from uuid import UUID

from api.protocols.ark.schemas import ArkImageRequest, ArkVideoRequest, Tool
from worker.core.catalog.models import get_catalog
from worker.core.catalog.provider_data import first_provider
from worker.core.errors import DreameryError
from worker.core.ids import public_id

_CLASS = re.compile(r"[1-9](?:\.[0-9])?k", re.IGNORECASE)
_TASK_ID = re.compile(r"(?:cgt-|job_|video_)([0-9a-f]{32})")
# Our names of fields -> the vendor's, for errors.
SENT_NAMES = {
    "layers": "layer_decomposition",
    "series": "sequential_image_generation",
    "n": "sequential_image_generation_options",
    "web_search": "tools",
    "task_type": "omni_reference_task_type",
    "draft_of": "content",
    "images": "content",
    "videos": "content",
    "audios": "content",
    "prompt": "content",
}
_IMAGE_NAMES = frozenset({"layers", "series", "n", "web_search"})
# Images have classes such as `2K` as their size.
_OF_IMAGES = {"resolution": "size"}


def sent_names(*, of_image: bool) -> dict[str, str]:
    """Return under which name the vendor's clients send a field of ours."""
    if not of_image:
        return SENT_NAMES
    return {ours: sent for ours, sent in SENT_NAMES.items() if ours in _IMAGE_NAMES} | _OF_IMAGES


def image_fields(body: ArkImageRequest) -> dict[str, Any]:
    """Return the fields of `/v1/images/generations`. Raises an error for what no model supports."""
    body.reject_unknown()
    _reject({"guidance_scale": body.guidance_scale, "optimize_prompt": body.optimize_prompt})
    fields = {
        "model": body.model,
        "prompt": body.prompt,
        "image": body.image,
        **_size_fields(body.size),
        "seed": _seed(body.seed),
        "response_format": body.response_format,
        "output_format": body.output_format,
        "background": None if body.background == "auto" else body.background,
        "layers": body.layer_decomposition or None,
        **_set_fields(body),
        "web_search": _web_search(body.tools),
        "optimize_prompt_options": _optimize(body),
        "safety_identifier": body.safety_identifier,
    }
    return _without_none(fields)


def video_fields(body: ArkVideoRequest) -> dict[str, Any]:
    """Return the fields of `/v1/videos/generations`. Raises an error for what no model supports."""
    body.reject_unknown()
    _reject({"frames": body.frames}, "Send `duration` instead.")
    hint = "Get the task until its status is final, or add an endpoint at /v1/webhooks."
    _reject({"callback_url": body.callback_url}, hint)
    drafts = [item for item in body.content if item.get("type") == "draft_task"]
    rest = [item for item in body.content if item.get("type") != "draft_task"]
    if len(drafts) > 1 or (drafts and rest):
        message = "A `draft_task` is the only item of its `content`."
        raise DreameryError("invalid_value", message, param="content")
    fields = {
        "model": body.model,
        # Texts and files with their roles; the media fields of our call read the vendor's items.
        "content": rest or None,
        "resolution": body.resolution,
        "ratio": body.ratio,
        "duration": body.duration,
        "seed": _seed(body.seed),
        "camera_fixed": body.camera_fixed or None,
        "generate_audio": body.generate_audio,
        "return_last_frame": body.return_last_frame or None,
        "output_format": None if body.output_format == "mp4" else body.output_format,
        "draft": body.draft or None,
        "draft_of": _draft_of(drafts[0]) if drafts else None,
        "task_type": None if body.omni_reference_task_type == "auto" else body.omni_reference_task_type,
        "web_search": _web_search(body.tools),
        "service_tier": None if body.service_tier == "default" else body.service_tier,
        "priority": body.priority or None,
        "user": body.safety_identifier,
    }
    return _without_none(fields)


def makes_videos_without_text(body: ArkVideoRequest) -> bool:
    """Return whether the body has inputs but no text, and its model is one that needs none."""
    kinds = {str(item.get("type")) for item in body.content if item.get("type") != "text" or item.get("text")}
    if "text" in kinds or kinds <= {"draft_task"}:
        return False
    return get_catalog().video_model(body.model).provider != first_provider()


def parse_task_id(text: str) -> UUID | None:
    """Return the job id of a task id, also of the forms of our other endpoints; None for other texts."""
    match = _TASK_ID.fullmatch(text)
    return None if match is None else UUID(hex=match[1])


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _reject(fields: dict[str, Any], hint: str = "Leave it out.") -> None:
    for name, value in fields.items():
        if value is not None:
            message = f"`{name}` is not supported here. {hint}"
            raise DreameryError("unsupported_parameter", message, param=name)


def _size_fields(size: Any) -> dict[str, Any]:
    """A class such as `2K` leaves the ratio to the model; pixels are pixels."""
    if isinstance(size, str) and _CLASS.fullmatch(size.strip()):
        return {"size": "auto", "resolution": size.strip().lower()}
    return {"size": size}


def _seed(seed: int | None) -> int | None:
    return None if seed == -1 else seed


def _web_search(tools: list[Tool] | None) -> bool | None:
    return True if tools else None


def _optimize(body: ArkImageRequest) -> dict[str, Any] | None:
    options = body.optimize_prompt_options
    return None if options is None else options.model_dump(exclude_none=True) or None


def _set_fields(body: ArkImageRequest) -> dict[str, Any]:
    """A set of images: one call where the model makes sets itself, else so many single images."""
    if body.sequential_image_generation != "auto":
        return {"n": 1}
    options = body.sequential_image_generation_options
    most = options.max_images if options is not None else None
    model = get_catalog().image_model(body.model)
    if model.max_set:
        return {"series": True, "n": most or model.max_set}
    return {"n": most}


def _draft_of(item: dict[str, Any]) -> str:
    draft = item.get("draft_task")
    name = draft.get("id") if isinstance(draft, dict) else None
    job_id = parse_task_id(name) if isinstance(name, str) else None
    if job_id is None:
        message = "`content.draft_task.id` must be the id of a finished draft, `cgt-...`."
        raise DreameryError("invalid_value", message, param="content")
    return public_id("job", job_id)
