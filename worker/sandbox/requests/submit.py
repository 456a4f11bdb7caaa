"""The body of a submit, read into an order; what every kind of draft has in common is checked here."""

from typing import Any

from worker.sandbox.requests.fields import (
    Belongings,
    RefusedError,
    as_object,
    child,
    is_uuid,
    is_version,
    need,
    only_one,
)
from worker.sandbox.requests.image import read_picture
from worker.sandbox.requests.order import Order
from worker.sandbox.requests.video import prompt_of, read_video
from worker.sandbox.uploads.store import Vault


def read_order(raw: bytes, *, aid: str, place: str | None, owner: Belongings | None = None) -> Order:
    """Check a submit body field by field. `place` limits the models to those on offer there."""
    owner = owner or Belongings(Vault(), "")
    body = as_object(raw, "body")
    need(is_uuid(body.get("submit_id")), "submit_id is not a UUID")
    need(str(child(body, "http_common_info").get("aid")) == aid, "http_common_info.aid is not the aid of the query")
    if "metrics_extra" in body:
        need(isinstance(body["metrics_extra"], str), "metrics_extra is not a string")
        as_object(body["metrics_extra"], "metrics_extra")
    text = body.get("draft_content")
    if not isinstance(text, str):
        raise RefusedError("1002", "draft_content is not a string")
    draft = as_object(text, "draft_content")
    component = _component(draft)
    kind = component.get("type")
    if kind == "video_base_component":
        return read_video(body, draft, component, place=place, owner=owner)
    need(kind == "image_base_component", "component type is neither image_base_component nor video_base_component")
    return read_picture(body, component, place=place, owner=owner)


def _prompt_and_model(component: dict[str, Any]) -> tuple[object, object]:
    abilities = component["abilities"]
    if "gen_video" in abilities:
        params = abilities["gen_video"]["text_to_video_params"]
        return prompt_of(params["video_gen_inputs"][0]), params.get("model_req_key")
    core = abilities["blend" if "blend" in abilities else "generate"]["core_param"]
    return core.get("prompt"), core.get("model")


def glimpse(raw: bytes) -> dict[str, Any]:
    """What can be read of a submit that will be refused, for the ledger."""
    known: dict[str, Any] = {}
    try:
        body = as_object(raw, "body")
        submit_id = body.get("submit_id")
        known["submit_id"] = submit_id if is_uuid(submit_id) else None
        component = as_object(body.get("draft_content", ""), "draft_content")["component_list"][0]
        prompt, model = _prompt_and_model(component)
        known |= {"prompt": str(prompt)[:4000], "model": str(model)[:80]}
    except (RefusedError, LookupError, TypeError, AttributeError):
        pass
    return known


def _component(draft: dict[str, Any]) -> dict[str, Any]:
    need(draft.get("type") == "draft", "draft type is not 'draft'")
    need(is_uuid(draft.get("id")), "draft id is not a UUID")
    need(is_version(draft.get("min_version")), "draft min_version is missing")
    need(is_version(draft.get("version")), "draft version is missing")
    need(isinstance(draft.get("min_features", []), list), "draft min_features is not an array")
    need(draft.get("is_from_tsn") is True, "draft is_from_tsn is not true")
    component = only_one(draft.get("component_list"), "component_list")
    need(is_uuid(component.get("id")), "component id is not a UUID")
    need(draft.get("main_component_id") == component["id"], "main_component_id is not the id of the component")
    need(is_version(component.get("min_version")), "component min_version is missing")
    need(component.get("aigc_mode") == "workbench", "aigc_mode is not workbench")
    # The Chinese site of the seed sends no metadata at all.
    need(isinstance(component.get("metadata", {}), dict), "metadata is not an object")
    return component
