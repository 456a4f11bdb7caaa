"""The optional fields that a model takes, as data: forms such as the console's are built from it and name no model."""

from collections.abc import Iterable
from typing import Any

from worker.core.catalog.models import ImageModel, VideoModel

_EDITS = ("edit", "extend")


def fields_of(model: ImageModel | VideoModel) -> list[dict[str, Any]]:
    """Return the fields beside prompt, inputs, size and length: name, type and, for a choice, its values.

    The first value of a choice is the default one.
    """
    own = _image_fields(model) if isinstance(model, ImageModel) else _video_fields(model)
    seed = [{"name": "seed", "type": "integer"}] if model.seed in {"always", "documented"} else []
    return [*seed, *own]


def _image_fields(model: ImageModel) -> Iterable[dict[str, Any]]:
    if "negative_prompt" in model.fields:
        yield {"name": "negative_prompt", "type": "text"}
    if "sample_strength" in model.fields and model.references:
        yield {"name": "sample_strength", "type": "number"}
    if model.max_set:
        yield {"name": "series", "type": "boolean", "default": False}
    if model.max_layers:
        yield {"name": "layers", "type": "boolean", "default": False}
    if backgrounds := {name.partition("_if_")[0] for name in model.backgrounds} - {"opaque", "auto"}:
        yield {"name": "background", "type": "choice", "values": ["auto", *sorted(backgrounds)]}
    if model.web_search:
        yield {"name": "web_search", "type": "boolean", "default": False}


def _video_fields(model: VideoModel) -> Iterable[dict[str, Any]]:
    if model.audio_switch:
        yield {"name": "generate_audio", "type": "boolean", "default": True}
    if "draft" in model.modes:
        yield {"name": "draft", "type": "boolean", "default": False}
    if edits := [mode for mode in _EDITS if mode in model.modes]:
        yield {"name": "task_type", "type": "choice", "values": ["auto", "reference", *edits]}
    if model.flex:
        yield {"name": "service_tier", "type": "choice", "values": ["default", "flex"]}
    if "priority" in model.fields:
        yield {"name": "priority", "type": "choice", "values": list(range(10))}
    switches = {"return_last_frame": "return_last_frame", "camera_fixed": "camera_fixed", "web_search": "tools"}
    for name, field in switches.items():
        if field in model.fields:
            yield {"name": name, "type": "boolean", "default": False}
    if "output_format" in model.fields:
        yield {"name": "output_format", "type": "choice", "values": ["mp4", "mov"]}
