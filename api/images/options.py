"""Fields of image requests that only some models have: sets, layers, background, search, rewriting of the prompt."""

from collections.abc import Sequence
from typing import Any

from api.generation.media.reference_images import ReferenceImage
from api.generation.media.reference_media import ReferenceInput
from api.generation.media.values import InputEntry
from api.generation.models.fields import unsupported
from api.images.schemas import ImageGenerationRequest
from worker.core.catalog.models import ImageModel, get_catalog
from worker.core.errors import DreameryError

_TRANSPARENT = "transparent"
_WITH_ALPHA = "transparent_if_one_alpha_reference"
# Pictures that upstream can take apart.
_LAYERED_SIDE = 512
_LAYERED_TYPES = frozenset({"image/png", "image/jpeg"})


def reject_unsupported_fields(body: ImageGenerationRequest, model: ImageModel) -> None:
    """Raise `unsupported_parameter` for fields that the model does not have, unless they have a neutral value."""
    others = get_catalog().image_models
    able: dict[str, tuple[bool, bool]] = {
        # field -> whether it is asked for, whether the model has it
        "layers": (bool(body.layers), model.max_layers > 0),
        "series": (bool(body.series), model.max_set > 0),
        "web_search": (bool(body.web_search), model.web_search),
        "negative_prompt": (bool((body.negative_prompt or "").strip()), "negative_prompt" in model.fields),
        "sample_strength": (body.sample_strength is not None, "sample_strength" in model.fields),
        "optimize_prompt_options": (bool(body.optimize_prompt_options), bool(model.optimize_modes)),
    }
    for field, (asked, has) in able.items():
        if asked and not has:
            raise unsupported(model, field, (one for one in others if _has(one, field)))


def _has(model: ImageModel, field: str) -> bool:
    return {
        "layers": model.max_layers > 0,
        "series": model.max_set > 0,
        "web_search": model.web_search,
        "optimize_prompt_options": bool(model.optimize_modes),
    }.get(field, field in model.fields)


def image_options(body: ImageGenerationRequest, model: ImageModel, *, n: int) -> dict[str, Any]:
    """Return the options of the order. Raises the error of values that do not fit each other."""
    references = len(body.media_inputs)
    options: dict[str, Any] = {}
    if body.series:
        most = (
            model.max_set
            if not model.max_set_with_inputs
            else min(model.max_set, model.max_set_with_inputs - references)
        )
        if n > most:
            message = f"A series of model {model.id!r} has at most {most} images with these inputs; got {n}."
            raise DreameryError("invalid_value", message, param="n")
        options["series"] = True
    if body.layers:
        _check_layers(body, references)
        options["layers"] = True
    if body.background in {_TRANSPARENT, "opaque"} and model.backgrounds:
        options["background"] = body.background
    if body.background == _TRANSPARENT:
        _check_transparency(body, model, references)
    if body.web_search:
        options["web_search"] = True
    if mode := (body.optimize_prompt_options or {}).get("mode"):
        if mode not in model.optimize_modes:
            allowed = ", ".join(model.optimize_modes)
            message = (
                f"`optimize_prompt_options.mode` of model {model.id!r} is one of {allowed}; got {str(mode)[:20]!r}."
            )
            raise DreameryError("invalid_value", message, param="optimize_prompt_options")
        options["optimize"] = mode
    # Other formats are made from upstream's by us; only png keeps transparency on the way.
    wanted = "jpeg" if body.output_format == "jpg" else body.output_format
    wanted = "png" if body.background == _TRANSPARENT else wanted
    if wanted in model.formats and "output_format" in model.fields:
        options["output_format"] = wanted
    return options


def _check_layers(body: ImageGenerationRequest, references: int) -> None:
    if references != 1:
        message = f"`layers` needs exactly one image; got {references}."
        raise DreameryError("invalid_value", message, param="image")
    if (body.n or 1) > 1 or body.series:
        message = "`layers` takes one picture apart. Leave `n` and `series` out."
        raise DreameryError("invalid_value", message, param="n")
    if body.background == _TRANSPARENT:
        message = "`background` and `layers` cannot be combined. Send one of them."
        raise DreameryError("invalid_value", message, param="background")


def _check_transparency(body: ImageGenerationRequest, model: ImageModel, references: int) -> None:
    if _TRANSPARENT not in model.backgrounds and _WITH_ALPHA not in model.backgrounds:
        able = ", ".join(one.id for one in get_catalog().image_models if _TRANSPARENT in one.backgrounds)
        message = f"Model {model.id!r} does not support a transparent background. Models that do: {able}."
        raise DreameryError("unsupported_parameter", message, param="background")
    if _TRANSPARENT not in model.backgrounds and references != 1:
        message = (
            f"With model {model.id!r} a transparent background needs exactly one image that has transparency; "
            f"got {references}."
        )
        raise DreameryError("invalid_value", message, param="background")
    if body.output_format in {"jpeg", "jpg"}:
        message = "JPEG has no transparency. Send `output_format` `png` or `webp`, or leave it out."
        raise DreameryError("invalid_value", message, param="output_format")


def check_layered_picture(
    body: ImageGenerationRequest, entries: Sequence[InputEntry], references: Sequence[ReferenceInput]
) -> None:
    """Raise an error for a picture whose layers cannot be separated. What is behind a link is not known here."""
    if not body.layers:
        return
    for entry, item in zip(entries, references, strict=True):
        facts = item.facts if isinstance(item, ReferenceImage) else None
        if facts is not None and (min(facts.width, facts.height) < _LAYERED_SIDE or facts.mime not in _LAYERED_TYPES):
            message = (
                f"`{entry.param}` has {facts.width}x{facts.height} pixels and is {facts.mime}; `layers` needs a PNG or "
                f"JPEG with sides of at least {_LAYERED_SIDE}."
            )
            raise DreameryError("invalid_image", message, param=entry.param)
