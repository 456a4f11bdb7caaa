"""Reads image drafts: from text (`generate`) and from reference images (`blend`)."""

import math
import re
from typing import Any

from worker.sandbox.models.image_models import IMAGE_MODELS, PRICES, ImageModel, free_size, image_size
from worker.sandbox.requests.fields import (
    AccountUploads,
    RefusedError,
    as_objects,
    get_object,
    is_int,
    is_uuid,
    parse_list,
    parse_object,
    require,
    single_object,
)
from worker.sandbox.requests.order import Order
from worker.sandbox.uploads.file_inspection import Thumbnail

DEFAULT_COUNT = 4
REFERENCE_MARK = "##"
_SHEET_COUNT = re.compile(r"(\d{1,4})\s*张")
_MOST_SHEET_COUNT = 15


def read_image(body: dict[str, Any], component: dict[str, Any], *, site: str | None, uploads: AccountUploads) -> Order:
    kind = component.get("generate_type")
    if kind not in {"generate", "blend"}:
        raise RefusedError("1000", "generate_type is neither generate nor blend")
    abilities = get_object(component, "abilities")
    job = get_object(abilities, str(kind))
    core = get_object(job, "core_param")
    model = _model(core, get_object(body, "extend").get("root_model"), site)
    _check_core(core, blend=kind == "blend")
    series = _is_series(body)
    references = _references(job, core["prompt"], model, uploads) if kind == "blend" else ()
    option = abilities.get("gen_option") or job.get("gen_option") or {}
    require(isinstance(option, dict), "gen_option is not an object")
    if series:
        require(kind == "generate" and model.series, f"model {model.key!r} does not make series, or not from images")
        require("gen_count" not in option, "a series has a gen_count")
    count = series_count(core["prompt"]) if series else _count(option.get("gen_count"), model)
    width, height, resolution = _size(core)
    return Order(
        submit_id=body["submit_id"],
        prompt=core["prompt"],
        model=model,
        seed=core.get("seed", 0),
        width=width,
        height=height,
        count=count,
        price=PRICES[resolution] * count,
        kind="blend" if kind == "blend" else "image",
        references=references,
    )


def _is_series(body: dict[str, Any]) -> bool:
    """Return whether the telemetry declares a series. Raises RefusedError when its other fields do not match."""
    metrics = parse_object(body.get("metrics_extra", "{}"), "metrics_extra")
    scenes = metrics.get("sceneOptions")
    scene = single_object(parse_list(scenes, "sceneOptions"), "sceneOptions") if isinstance(scenes, str) else {}
    kind = scene.get("scene", "ImageBasicGenerate")
    require(kind in {"ImageBasicGenerate", "ImageMultiGenerate"}, f"scene {str(kind)[:40]!r} is unknown")
    if kind == "ImageBasicGenerate":
        return False
    require("benefitCount" not in scene, "a series declares a benefitCount")
    names = ("templateId", "templateSource", "lastRequestId", "originRequestId")
    wrong = [name for name in names if metrics.get(name) != ""]
    require(not wrong, f"metrics_extra of a series lacks {', '.join(wrong)}")
    return True


def series_count(prompt: str) -> int:
    """Return the number of sheets named in the prompt, or four."""
    match = _SHEET_COUNT.search(prompt)
    return min(max(int(match[1]), 1), _MOST_SHEET_COUNT) if match else DEFAULT_COUNT


def _references(
    blend: dict[str, Any], prompt: str, model: ImageModel, uploads: AccountUploads
) -> tuple[Thumbnail, ...]:
    """Validate the references: one ability each. Returns their thumbnails."""
    abilities = as_objects(blend.get("ability_list"), "ability_list")
    require(abilities, "ability_list is empty")
    require(len(abilities) <= model.references, f"model {model.key!r} takes {model.references} references at most")
    thumbnails = [_reference(one, f"ability_list[{index}]", uploads) for index, one in enumerate(abilities)]
    holders = as_objects(blend.get("prompt_placeholder_info_list"), "prompt_placeholder_info_list")
    indexes = [holder.get("ability_index") for holder in holders]
    require(indexes == list(range(len(abilities))), "prompt_placeholder_info_list does not name each ability in order")
    # Usually one mark per reference, but upstream also accepts a single one, anywhere in the prompt.
    require(REFERENCE_MARK in prompt, f"the prompt has no {REFERENCE_MARK} mark for its references")
    require(get_object(blend, "postedit_param").get("generate_type") == 0, "postedit_param.generate_type is not 0")
    return tuple(thumbnails)


def _reference(ability: dict[str, Any], name: str, uploads: AccountUploads) -> Thumbnail:
    require(ability.get("name") == "byte_edit", f"{name}.name is not byte_edit")
    require(is_uuid(ability.get("id")), f"{name}.id is not a UUID")
    _check_fraction(ability.get("strength"), f"{name}.strength")
    image = single_object(ability.get("image_list"), f"{name}.image_list")
    require(
        ability.get("image_uri_list") == [image.get("image_uri")], f"{name}.image_uri_list is not that of image_list"
    )
    thumbnail = uploads.image(image, f"{name}.image_list[0]").thumbnail
    if thumbnail is None:
        raise RefusedError("1000", f"{name} is not an image")
    return thumbnail


def _model(core: dict[str, Any], root_model: object, site: str | None) -> ImageModel:
    key = core.get("model")
    require(isinstance(key, str) and key == root_model, "core_param.model is not extend.root_model")
    model = IMAGE_MODELS.get(str(key))
    if model is None:
        raise RefusedError("1000", f"model {str(key)[:80]!r} is unknown")
    if site is not None and site not in model.sites:
        raise RefusedError("1000", f"model {key!r} is not available in {site}")
    return model


def _check_fraction(value: object, name: str) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    require(number and 0 <= float(str(value)) <= 1, f"{name} is not a number in 0..1")


def _check_core(core: dict[str, Any], *, blend: bool) -> None:
    prompt = core.get("prompt")
    require(isinstance(prompt, str) and prompt.strip(), "prompt is empty")
    require(isinstance(core.get("negative_prompt", ""), str), "negative_prompt is not a string")
    # Blend requests of recorded clients have no seed.
    require(is_int(core.get("seed")) or (blend and "seed" not in core), "seed is not an integer")
    _check_fraction(core.get("sample_strength"), "sample_strength")
    require(isinstance(core.get("intelligent_ratio", False), bool), "intelligent_ratio is not a boolean")


def _size(core: dict[str, Any]) -> tuple[int, int, str]:
    info = get_object(core, "large_image_info")
    width, height, resolution = info.get("width"), info.get("height"), info.get("resolution_type")
    require(is_int(width) and is_int(height), "large_image_info has no whole width and height")
    ratio = core.get("image_ratio")
    if not (ratio is None and (core.get("intelligent_ratio") or resolution is None)):
        require(is_int(ratio) and 1 <= int(ratio or 0) <= 8, "image_ratio is not in 1..8")
    if resolution is None:
        return free_size(int(width or 0), int(height or 0), ratio)
    require(
        isinstance(resolution, str) and resolution in PRICES, f"resolution_type {str(resolution)[:20]!r} is unknown"
    )
    return *image_size(str(resolution), int(width or 0), int(height or 0), ratio), str(resolution)


def _count(requested: object, model: ImageModel) -> int:
    if requested is None or model.always_four:
        return DEFAULT_COUNT
    if not isinstance(requested, int) or isinstance(requested, bool) or not 1 <= requested <= model.max_count:
        raise RefusedError("1000", f"gen_count is not in 1..{model.max_count}")
    return requested
