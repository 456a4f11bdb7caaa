"""Reads the body of a submit into an order; validates the parts that all drafts have in common."""

from typing import Any

from worker.sandbox.requests.fields import (
    AccountUploads,
    RefusedError,
    get_object,
    is_uuid,
    is_version,
    parse_object,
    require,
    single_object,
)
from worker.sandbox.requests.image import read_image
from worker.sandbox.requests.order import Order
from worker.sandbox.requests.video import prompt_of, read_video
from worker.sandbox.uploads.store import UploadStore


def read_order(raw: bytes, *, aid: str, site: str | None, uploads: AccountUploads | None = None) -> Order:
    """Validate a submit body and return its order. `site` limits the models to those available there.

    Raises RefusedError for an invalid body.
    """
    uploads = uploads or AccountUploads(UploadStore(), "")
    body = parse_object(raw, "body")
    require(is_uuid(body.get("submit_id")), "submit_id is not a UUID")
    require(
        str(get_object(body, "http_common_info").get("aid")) == aid, "http_common_info.aid is not the aid of the query"
    )
    if "metrics_extra" in body:
        require(isinstance(body["metrics_extra"], str), "metrics_extra is not a string")
        parse_object(body["metrics_extra"], "metrics_extra")
    text = body.get("draft_content")
    if not isinstance(text, str):
        raise RefusedError("1002", "draft_content is not a string")
    draft = parse_object(text, "draft_content")
    component = _component(draft)
    kind = component.get("type")
    if kind == "video_base_component":
        return read_video(body, draft, component, site=site, uploads=uploads)
    require(kind == "image_base_component", "component type is neither image_base_component nor video_base_component")
    return read_image(body, component, site=site, uploads=uploads)


def _prompt_and_model(component: dict[str, Any]) -> tuple[object, object]:
    abilities = component["abilities"]
    if "gen_video" in abilities:
        params = abilities["gen_video"]["text_to_video_params"]
        return prompt_of(params["video_gen_inputs"][0]), params.get("model_req_key")
    core = abilities["blend" if "blend" in abilities else "generate"]["core_param"]
    return core.get("prompt"), core.get("model")


def peek(raw: bytes) -> dict[str, Any]:
    """Return the readable fields of a refused submit, for the ledger."""
    fields: dict[str, Any] = {}
    try:
        body = parse_object(raw, "body")
        submit_id = body.get("submit_id")
        fields["submit_id"] = submit_id if is_uuid(submit_id) else None
        component = parse_object(body.get("draft_content", ""), "draft_content")["component_list"][0]
        prompt, model = _prompt_and_model(component)
        fields |= {"prompt": str(prompt)[:4000], "model": str(model)[:80]}
    except (RefusedError, LookupError, TypeError, AttributeError):
        pass
    return fields


def _component(draft: dict[str, Any]) -> dict[str, Any]:
    require(draft.get("type") == "draft", "draft type is not 'draft'")
    require(is_uuid(draft.get("id")), "draft id is not a UUID")
    require(is_version(draft.get("min_version")), "draft min_version is missing")
    require(is_version(draft.get("version")), "draft version is missing")
    require(isinstance(draft.get("min_features", []), list), "draft min_features is not an array")
    require(draft.get("is_from_tsn") is True, "draft is_from_tsn is not true")
    component = single_object(draft.get("component_list"), "component_list")
    require(is_uuid(component.get("id")), "component id is not a UUID")
    require(draft.get("main_component_id") == component["id"], "main_component_id is not the id of the component")
    require(is_version(component.get("min_version")), "component min_version is missing")
    require(component.get("aigc_mode") == "workbench", "aigc_mode is not workbench")
    # Recorded requests of the Chinese site have no metadata.
    require(isinstance(component.get("metadata", {}), dict), "metadata is not an object")
    return component
