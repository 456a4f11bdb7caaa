"""Fields of video requests that only some models have, and the way in which a video is made (its mode)."""

from dataclasses import dataclass
from typing import Any

from api.generation.models.fields import unsupported
from api.videos.input_roles import Roles
from api.videos.schemas import VideoGenerationRequest
from worker.core.catalog.model_types import ADAPTIVE, AUTO_SECONDS
from worker.core.catalog.models import VideoModel, get_catalog
from worker.core.errors import DreameryError

_EDITS = ("edit", "extend")
_FLEX = "flex"


@dataclass(frozen=True, slots=True)
class Shape:
    """Ratio, resolution and seconds of a video after its mode is known, and what was changed of the request."""

    ratio: str
    resolution: str
    seconds: int
    adjusted: dict[str, str]


def reject_unsupported_fields(body: VideoGenerationRequest, model: VideoModel) -> None:
    """Raise `unsupported_parameter` for fields that the model does not have, unless they have a neutral value."""
    for field in _asked(body, model):
        if not _has(model, field):
            raise unsupported(model, field, (one for one in get_catalog().video_models if _has(one, field)))
    if body.fps is not None and "fps" not in model.fields and body.fps != model.fps:
        message = f"Model {model.id!r} makes {model.fps} frames a second; got {body.fps}."
        raise DreameryError("unsupported_parameter", message, param="fps")
    if (body.n or 1) > 1 and "n" not in model.fields:
        message = f"Model {model.id!r} makes one video per call; got `n` {body.n}. Call it again for more."
        raise DreameryError("invalid_value", message, param="n")


def _asked(body: VideoGenerationRequest, model: VideoModel) -> list[str]:
    asked = {
        # A model without sound has nothing to switch off.
        "generate_audio": body.generate_audio is not None and (body.generate_audio or model.makes_audio),
        "return_last_frame": bool(body.return_last_frame),
        "draft": bool(body.draft),
        "draft_of": bool(body.draft_of),
        "task_type": body.task_type not in {None, "auto"},
        "service_tier": body.service_tier not in {None, "default", "auto"},
        "priority": bool(body.priority),
        "web_search": bool(body.web_search),
        "camera_fixed": bool(body.camera_fixed),
        "output_format": body.output_format not in {None, "mp4"},
        "quality": (body.quality or "auto") not in {"auto", "standard"},
        "sample_strength": body.sample_strength is not None,
    }
    return [field for field, value in asked.items() if value]


def _has(model: VideoModel, field: str) -> bool:
    known = {
        "generate_audio": model.audio_switch,
        "draft": "draft" in model.modes,
        "draft_of": "final" in model.modes,
        "task_type": not model.modes.isdisjoint(_EDITS),
        "service_tier": model.flex,
        "web_search": "tools" in model.fields,
    }
    return known.get(field, field in model.fields)


def mode_of(body: VideoGenerationRequest, roles: Roles) -> str:
    """Return the mode of a video that is not the final of a draft. Raises the error of inputs that do not fit it."""
    names = {role for role, _ in roles.inputs}
    has_clip = any(entry.media == "video" for _, entry in roles.inputs)
    if body.draft:
        if "first_frame" in names:
            message = "A draft takes references, not frames. Send them as `reference_images`."
            raise DreameryError("invalid_value", message, param="draft")
        return "draft"
    if body.task_type in _EDITS:
        if not has_clip:
            message = f"`task_type` `{body.task_type}` needs a video. Send it as `videos`."
            raise DreameryError("missing_required_parameter", message, param="videos")
        return body.task_type
    if body.task_type == "reference" and "reference" not in names:
        message = "`task_type` `reference` needs references. Send them as `reference_images`, `videos` or `audios`."
        raise DreameryError("missing_required_parameter", message, param="images")
    if "reference" in names:
        return "reference"
    return "first_last" if "end_frame" in names else "first" if "first_frame" in names else "text"


def shape_for_mode(
    body: VideoGenerationRequest, model: VideoModel, shape: Shape, mode: str, *, has_pictures: bool, asked_ratio: bool
) -> Shape:
    """Return the shape as the mode allows it: the inputs may decide the ratio, and an edit keeps the length."""
    ratio, resolution, seconds, adjusted = shape.ratio, shape.resolution, shape.seconds, dict(shape.adjusted)
    if ADAPTIVE in model.ratios:
        words = {(text or "").strip().lower() for text in (body.size, body.ratio, body.aspect_ratio)}
        if mode in model.adaptive_only:
            if asked_ratio and ratio != ADAPTIVE:
                adjusted["ratio"] = ratio
            ratio = ADAPTIVE
        elif not asked_ratio and (has_pictures or words & {"auto", ADAPTIVE}):
            ratio = ADAPTIVE
    if mode == "edit":
        if body.duration not in {None, "", AUTO_SECONDS} or body.seconds not in {None, "", AUTO_SECONDS}:
            message = "An edit keeps the length of its video. Leave `duration` out."
            raise DreameryError("invalid_value", message, param="duration")
        seconds = AUTO_SECONDS
    if mode == "draft":
        if body.resolution and resolution != model.draft_resolution:
            message = f"A draft of model {model.id!r} has {model.draft_resolution}; got {resolution}."
            raise DreameryError("invalid_value", message, param="resolution")
        resolution = model.draft_resolution
    return Shape(ratio, resolution, seconds, adjusted)


def video_options(body: VideoGenerationRequest, model: VideoModel, roles: Roles, mode: str) -> dict[str, Any]:
    """Return the options of the order. Raises the error of values that do not fit each other."""
    if not model.fields or model.seed == "always":
        return {}
    pictures = [entry for _, entry in roles.inputs if entry.media != "audio"]
    if body.web_search and pictures:
        message = "`web_search` works with text alone. Leave it out, or send no images and videos."
        raise DreameryError("invalid_value", message, param="web_search")
    if body.camera_fixed and mode == "reference":
        message = "`camera_fixed` does not work with references. Leave it out."
        raise DreameryError("invalid_value", message, param="camera_fixed")
    if body.priority and body.service_tier == _FLEX:
        message = "`priority` has no effect in the slow lane (`service_tier` `flex`). Send one of them."
        raise DreameryError("invalid_value", message, param="priority")
    return {"mode": mode, **_sent(body, model)}


def _sent(body: VideoGenerationRequest, model: VideoModel) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if model.audio_switch:
        options["generate_audio"] = True if body.generate_audio is None else body.generate_audio
    if body.service_tier == _FLEX:
        options["service_tier"] = _FLEX
    if body.output_format and "output_format" in model.fields:
        options["output_format"] = body.output_format
    for field in ("return_last_frame", "priority", "web_search", "camera_fixed"):
        if value := getattr(body, field):
            options[field] = value
    return options


def fields_of_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a request that gives the same options, for a remix. A final is made like its draft."""
    fields = {name: value for name, value in options.items() if name not in {"mode", "draft_of"}}
    mode = options.get("mode")
    if mode in _EDITS:
        fields["task_type"] = mode
    return {**fields, **({"draft": True} if mode == "draft" else {})}
