"""Builds the body of `POST /images/generations`. Only fields that the data lists for a model are sent.

Some keys are refused even with a neutral value, so a field that is not used is left out.
"""

from dataclasses import dataclass
from typing import Any

from worker.core.errors import DreameryError
from worker.providers.ark.models import ImageModel


@dataclass(frozen=True, slots=True)
class ImageCall:
    """One call. `model_id` = the vendor's id or an endpoint of the account; `size` = `WxH` or a class such as `2K`.

    `images` = links or data URLs. `max_images` above 1 asks for a set, of which fewer may come.
    """

    model: ImageModel
    model_id: str
    prompt: str
    size: str
    images: tuple[str, ...] = ()
    output_format: str | None = None
    background: str | None = None
    layers: bool = False
    max_images: int = 1
    stream: bool = False
    web_search: bool = False
    optimize: str | None = None
    seed: int | None = None
    safety_identifier: str | None = None


def build_image_body(call: ImageCall) -> dict[str, Any]:
    """Return the body. Raises `unsupported_parameter` for a field that the model does not have."""
    body: dict[str, Any] = {"model": call.model_id, "prompt": call.prompt}
    if call.images:
        body["image"] = call.images[0] if len(call.images) == 1 else list(call.images)
    optional: dict[str, Any] = {
        "layer_decomposition": call.layers or None,
        "output_format": call.output_format,
        "background": call.background,
        "sequential_image_generation": "auto" if call.max_images > 1 else None,
        "stream": call.stream or None,
        "tools": [{"type": "web_search"}] if call.web_search else None,
        "optimize_prompt_options": {"mode": call.optimize} if call.optimize else None,
    }
    body["size"] = call.size
    for name, value in optional.items():
        if value is not None:
            require_field(call.model.id, call.model.fields, name)
            body[name] = value
    if call.max_images > 1:
        body["sequential_image_generation_options"] = {"max_images": call.max_images}
    if call.seed is not None:
        if call.model.seed == "none":
            raise unsupported(call.model.id, "seed")
        body["seed"] = call.seed
    if call.safety_identifier and "safety_identifier" in call.model.fields:
        body["safety_identifier"] = call.safety_identifier
    body["watermark"] = False  # the vendor's default is true
    body["response_format"] = "url"
    return body


def require_field(model: str, fields: frozenset[str], name: str) -> None:
    """Raises `unsupported_parameter` if the model does not have the field."""
    if name not in fields:
        raise unsupported(model, name)


def unsupported(model: str, name: str) -> DreameryError:
    """Return the refusal of a field that a model does not have."""
    return DreameryError("unsupported_parameter", f"Model {model!r} does not have {name!r}. Leave it out.", param=name)
