"""What upstream would not accept: call headers, and the body of a submit read into an order."""

import hashlib
import math
import re
from dataclasses import dataclass
from typing import Any

import orjson

from worker.sandbox.hosts import AID_ABROAD, AID_CHINA
from worker.sandbox.models import MODELS, PRICES, Model, picture_size

CLOCK_TOLERANCE = 300
DEFAULT_COUNT = 4
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_VERSION = re.compile(r"\d+\.\d+\.\d+")


class RefusedError(Exception):
    """Carries the `ret` code and, for the ledger, what was wrong."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Order:
    """A submit that passed every check."""

    submit_id: str
    prompt: str
    model: Model
    seed: int
    width: int
    height: int
    count: int
    price: int


def sign(path: str, *, pf: str, appvr: str, second: str, tdid: str) -> str:
    return hashlib.md5(f"9e2c|{path[-7:]}|{pf}|{appvr}|{second}|{tdid}|11ac".encode()).hexdigest()


def check_app(*, appid: str, aid: str, aid_needed: bool, wanted: str | None) -> None:
    """`aid` in the query and `Appid` in the header agree, and fit the host when the client told it."""
    if appid not in {AID_CHINA, AID_ABROAD}:
        raise RefusedError("1000", f"Appid header is {appid!r}")
    if (aid or aid_needed) and aid != appid:
        raise RefusedError("1000", f"aid {aid!r} is not the Appid header {appid!r}")
    if wanted and appid != wanted:
        raise RefusedError("1000", f"Appid {appid} does not belong to this host, {wanted} does")


def check_sign(path: str, headers: Any, now: float) -> None:
    second = headers.get("device-time", "")
    if not second.isascii() or not second.isdigit() or abs(now - int(second[:15])) > CLOCK_TOLERANCE:
        raise RefusedError("1014", f"Device-Time {second[:24]!r} is more than 5 minutes off")
    wanted = sign(
        path,
        pf=headers.get("pf", ""),
        appvr=headers.get("appvr", ""),
        second=second,
        tdid=headers.get("tdid", ""),
    )
    if headers.get("sign", "") != wanted:
        raise RefusedError("1014", "Sign does not fit path, Pf, Appvr, Device-Time and Tdid")
    if headers.get("sign-ver") != "1":
        raise RefusedError("1014", "Sign-Ver is not 1")


def _need(condition: object, detail: str) -> None:
    if not condition:
        raise RefusedError("1000", detail)


def _child(parent: dict[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    if not isinstance(value, dict):
        raise RefusedError("1000", f"{name} is missing or not an object")
    return value


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_uuid(value: object) -> bool:
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def _is_version(value: object) -> bool:
    return isinstance(value, str) and _VERSION.fullmatch(value) is not None


def read_order(raw: bytes, *, aid: str, place: str | None) -> Order:
    """Check a submit body field by field. `place` limits the models to those on offer there."""
    body = _object(raw, "body")
    _need(_is_uuid(body.get("submit_id")), "submit_id is not a UUID")
    _need(str(_child(body, "http_common_info").get("aid")) == aid, "http_common_info.aid is not the aid of the query")
    if "metrics_extra" in body:
        _need(isinstance(body["metrics_extra"], str), "metrics_extra is not a string")
        _object(body["metrics_extra"], "metrics_extra")
    text = body.get("draft_content")
    if not isinstance(text, str):
        raise RefusedError("1002", "draft_content is not a string")
    component = _component(_object(text, "draft_content"))
    abilities = _child(component, "abilities")
    generate = _child(abilities, "generate")
    core = _child(generate, "core_param")
    model = _model(core, _child(body, "extend").get("root_model"), place)
    _check_core(core)
    option = abilities.get("gen_option") or generate.get("gen_option") or {}
    _need(isinstance(option, dict), "gen_option is not an object")
    count = _count(option.get("gen_count"), model)
    width, height, resolution = _size(core)
    return Order(
        submit_id=body["submit_id"],
        prompt=core["prompt"],
        model=model,
        seed=core["seed"],
        width=width,
        height=height,
        count=count,
        price=PRICES[resolution] * count,
    )


def glimpse(raw: bytes) -> dict[str, Any]:
    """What can be read of a submit that will be refused, for the ledger."""
    known: dict[str, Any] = {}
    try:
        body = _object(raw, "body")
        submit_id = body.get("submit_id")
        known["submit_id"] = submit_id if _is_uuid(submit_id) else None
        component = _object(body.get("draft_content", ""), "draft_content")["component_list"][0]
        core = component["abilities"]["generate"]["core_param"]
        known |= {"prompt": str(core.get("prompt"))[:4000], "model": str(core.get("model"))[:80]}
    except (RefusedError, LookupError, TypeError, AttributeError):
        pass
    return known


def _object(raw: bytes | str, name: str) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise RefusedError("1000", f"{name} is not JSON") from None
    if not isinstance(value, dict):
        raise RefusedError("1000", f"{name} is not a JSON object")
    return value


def _component(draft: dict[str, Any]) -> dict[str, Any]:
    _need(draft.get("type") == "draft", "draft type is not 'draft'")
    _need(_is_uuid(draft.get("id")), "draft id is not a UUID")
    _need(_is_version(draft.get("min_version")), "draft min_version is missing")
    _need(_is_version(draft.get("version")), "draft version is missing")
    _need(isinstance(draft.get("min_features", []), list), "draft min_features is not an array")
    _need(draft.get("is_from_tsn") is True, "draft is_from_tsn is not true")
    components = draft.get("component_list")
    if not isinstance(components, list) or len(components) != 1 or not isinstance(components[0], dict):
        raise RefusedError("1000", "component_list does not hold exactly one component")
    component: dict[str, Any] = components[0]
    _need(_is_uuid(component.get("id")), "component id is not a UUID")
    _need(draft.get("main_component_id") == component["id"], "main_component_id is not the id of the component")
    _need(component.get("type") == "image_base_component", "component type is not image_base_component")
    _need(_is_version(component.get("min_version")), "component min_version is missing")
    _need(component.get("aigc_mode") == "workbench", "aigc_mode is not workbench")
    _need(component.get("generate_type") == "generate", "generate_type is not generate")
    # The Chinese site of the seed sends no metadata at all.
    _need(isinstance(component.get("metadata", {}), dict), "metadata is not an object")
    return component


def _model(core: dict[str, Any], root_model: object, place: str | None) -> Model:
    key = core.get("model")
    _need(isinstance(key, str) and key == root_model, "core_param.model is not extend.root_model")
    model = MODELS.get(str(key))
    if model is None:
        raise RefusedError("1000", f"model {str(key)[:80]!r} is unknown")
    if place is not None and place not in model.places:
        raise RefusedError("1000", f"model {key!r} is not on offer in {place}")
    return model


def _check_core(core: dict[str, Any]) -> None:
    prompt = core.get("prompt")
    _need(isinstance(prompt, str) and prompt.strip(), "prompt is empty")
    _need(isinstance(core.get("negative_prompt", ""), str), "negative_prompt is not a string")
    _need(_is_int(core.get("seed")), "seed is not an integer")
    strength = core.get("sample_strength")
    _need(
        isinstance(strength, (int, float)) and not isinstance(strength, bool) and math.isfinite(strength),
        "sample_strength is not a number",
    )
    _need(0 <= core["sample_strength"] <= 1, "sample_strength is not in 0..1")
    _need(isinstance(core.get("intelligent_ratio", False), bool), "intelligent_ratio is not a boolean")


def _size(core: dict[str, Any]) -> tuple[int, int, str]:
    info = _child(core, "large_image_info")
    width, height, resolution = info.get("width"), info.get("height"), info.get("resolution_type")
    _need(_is_int(width) and _is_int(height), "large_image_info has no whole width and height")
    _need(isinstance(resolution, str) and resolution in PRICES, f"resolution_type {str(resolution)[:20]!r} is unknown")
    ratio = core.get("image_ratio")
    if not (ratio is None and core.get("intelligent_ratio")):
        _need(_is_int(ratio) and 1 <= int(ratio or 0) <= 8, "image_ratio is not in 1..8")
    return *picture_size(str(resolution), int(width or 0), int(height or 0), ratio), str(resolution)


def _count(asked: object, model: Model) -> int:
    if asked is None or model.always_four:
        return DEFAULT_COUNT
    if not isinstance(asked, int) or isinstance(asked, bool) or not 1 <= asked <= model.most:
        raise RefusedError("1000", f"gen_count is not in 1..{model.most}")
    return asked
