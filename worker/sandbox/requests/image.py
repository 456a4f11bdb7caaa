"""Picture drafts: from text (`generate`) and from pictures (`blend`)."""

import math
import re
from typing import Any

from worker.sandbox.models.image_models import MODELS, PRICES, Model, picture_size
from worker.sandbox.requests.fields import (
    Belongings,
    RefusedError,
    as_list,
    as_object,
    child,
    is_int,
    is_uuid,
    need,
    objects,
    only_one,
)
from worker.sandbox.requests.order import Order
from worker.sandbox.uploads.file_inspection import Thumb

DEFAULT_COUNT = 4
MARK = "##"
_SHEETS = re.compile(r"(\d{1,4})\s*张")
_MOST_SHEETS = 15


def read_picture(body: dict[str, Any], component: dict[str, Any], *, place: str | None, owner: Belongings) -> Order:
    kind = component.get("generate_type")
    if kind not in {"generate", "blend"}:
        raise RefusedError("1000", "generate_type is neither generate nor blend")
    abilities = child(component, "abilities")
    job = child(abilities, str(kind))
    core = child(job, "core_param")
    model = _model(core, child(body, "extend").get("root_model"), place)
    _check_core(core, blend=kind == "blend")
    series = _is_series(body)
    pasted = _references(job, core["prompt"], model, owner) if kind == "blend" else ()
    option = abilities.get("gen_option") or job.get("gen_option") or {}
    need(isinstance(option, dict), "gen_option is not an object")
    if series:
        need(kind == "generate" and model.series, f"model {model.key!r} makes no series, or not from pictures")
        need("gen_count" not in option, "a series beside a gen_count")
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
        pasted=pasted,
    )


def _is_series(body: dict[str, Any]) -> bool:
    """Whether the telemetry declares the scene of a series, which goes with what the page sends beside it."""
    metrics = as_object(body.get("metrics_extra", "{}"), "metrics_extra")
    scenes = metrics.get("sceneOptions")
    scene = only_one(as_list(scenes, "sceneOptions"), "sceneOptions") if isinstance(scenes, str) else {}
    kind = scene.get("scene", "ImageBasicGenerate")
    need(kind in {"ImageBasicGenerate", "ImageMultiGenerate"}, f"scene {str(kind)[:40]!r} is unknown")
    if kind == "ImageBasicGenerate":
        return False
    need("benefitCount" not in scene, "a series declares a benefitCount")
    names = ("templateId", "templateSource", "lastRequestId", "originRequestId")
    wrong = [name for name in names if metrics.get(name) != ""]
    need(not wrong, f"metrics_extra of a series lacks {', '.join(wrong)}")
    return True


def series_count(prompt: str) -> int:
    """The number of sheets the words of a prompt name; four when they name none."""
    named = _SHEETS.search(prompt)
    return min(max(int(named[1]), 1), _MOST_SHEETS) if named else DEFAULT_COUNT


def _references(blend: dict[str, Any], prompt: str, model: Model, owner: Belongings) -> tuple[Thumb, ...]:
    """One ability per reference, each owning a mark in the prompt."""
    abilities = objects(blend.get("ability_list"), "ability_list")
    need(abilities, "ability_list is empty")
    need(len(abilities) <= model.references, f"model {model.key!r} takes {model.references} references at most")
    found = [_reference(one, f"ability_list[{index}]", owner) for index, one in enumerate(abilities)]
    holders = objects(blend.get("prompt_placeholder_info_list"), "prompt_placeholder_info_list")
    places = [holder.get("ability_index") for holder in holders]
    need(places == list(range(len(abilities))), "prompt_placeholder_info_list does not name each ability in order")
    # One mark per reference is the rule, but clients that send a single one, or put it at the end, are served too.
    need(MARK in prompt, f"the prompt has no {MARK} mark for its references")
    need(child(blend, "postedit_param").get("generate_type") == 0, "postedit_param.generate_type is not 0")
    return tuple(found)


def _reference(ability: dict[str, Any], name: str, owner: Belongings) -> Thumb:
    need(ability.get("name") == "byte_edit", f"{name}.name is not byte_edit")
    need(is_uuid(ability.get("id")), f"{name}.id is not a UUID")
    _check_share(ability.get("strength"), f"{name}.strength")
    image = only_one(ability.get("image_list"), f"{name}.image_list")
    need(ability.get("image_uri_list") == [image.get("image_uri")], f"{name}.image_uri_list is not that of image_list")
    thumb = owner.image(image, f"{name}.image_list[0]").thumb
    if thumb is None:
        raise RefusedError("1000", f"{name} is not a picture")
    return thumb


def _model(core: dict[str, Any], root_model: object, place: str | None) -> Model:
    key = core.get("model")
    need(isinstance(key, str) and key == root_model, "core_param.model is not extend.root_model")
    model = MODELS.get(str(key))
    if model is None:
        raise RefusedError("1000", f"model {str(key)[:80]!r} is unknown")
    if place is not None and place not in model.places:
        raise RefusedError("1000", f"model {key!r} is not on offer in {place}")
    return model


def _check_share(value: object, name: str) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    need(number and 0 <= float(str(value)) <= 1, f"{name} is not a number in 0..1")


def _check_core(core: dict[str, Any], *, blend: bool) -> None:
    prompt = core.get("prompt")
    need(isinstance(prompt, str) and prompt.strip(), "prompt is empty")
    need(isinstance(core.get("negative_prompt", ""), str), "negative_prompt is not a string")
    # Blend requests of recorded clients carry no seed.
    need(is_int(core.get("seed")) or (blend and "seed" not in core), "seed is not an integer")
    _check_share(core.get("sample_strength"), "sample_strength")
    need(isinstance(core.get("intelligent_ratio", False), bool), "intelligent_ratio is not a boolean")


def _size(core: dict[str, Any]) -> tuple[int, int, str]:
    info = child(core, "large_image_info")
    width, height, resolution = info.get("width"), info.get("height"), info.get("resolution_type")
    need(is_int(width) and is_int(height), "large_image_info has no whole width and height")
    need(isinstance(resolution, str) and resolution in PRICES, f"resolution_type {str(resolution)[:20]!r} is unknown")
    ratio = core.get("image_ratio")
    if not (ratio is None and core.get("intelligent_ratio")):
        need(is_int(ratio) and 1 <= int(ratio or 0) <= 8, "image_ratio is not in 1..8")
    return *picture_size(str(resolution), int(width or 0), int(height or 0), ratio), str(resolution)


def _count(asked: object, model: Model) -> int:
    if asked is None or model.always_four:
        return DEFAULT_COUNT
    if not isinstance(asked, int) or isinstance(asked, bool) or not 1 <= asked <= model.most:
        raise RefusedError("1000", f"gen_count is not in 1..{model.most}")
    return asked
