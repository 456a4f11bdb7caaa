"""The model list in OpenAI's format, with fields that clients of other gateways read."""

from typing import Any

from fastapi import APIRouter, Response

from api.auth.dependencies import Caller, CallerDep
from api.generation.model_availability import read_offer_or_empty
from api.generation.model_schemas import Model, ModelList
from api.generation.request_checks import AGENT
from api.http.errors import error_responses
from api.http.responses import json_response
from worker.core.catalog.models import ImageModel, VideoModel, get_catalog
from worker.core.catalog.provider_data import all_providers
from worker.core.catalog.upstream_models import UpstreamModels

router = APIRouter(prefix="/v1/models", tags=["models"])

# Upstream gives no creation time; clients only need an integer.
_CREATED = 1_763_000_000


def _regions(caller: Caller) -> set[str]:
    """Return the regions of the caller's session ids; empty for the pool, which may have accounts of all regions."""
    return {token.region for _, token in caller.tokens}


def _is_offered(model: ImageModel | VideoModel, region: str) -> bool:
    return model.is_listed_for(region)


def _tip(model: ImageModel, upstream_tip: str) -> str:
    if upstream_tip:
        return upstream_tip
    counts = f"1 to {model.max_per_job} images" if model.counts else f"{model.default_count} images"
    return f"{model.name}: {', '.join(model.resolutions)}; {counts} per job"


def _remark(model: ImageModel | VideoModel, name: str) -> str | None:
    if name == model.id or not get_catalog().is_built_in_name(name):
        return None
    return f"A name that tools have built in. Here it means {model.id}; the operator can map it to another model."


def _agent() -> dict[str, Any] | None:
    """Return the agent, which is not in the catalog: upstream chooses the models it calls. None = nobody has one."""
    found = next(((one, one.agent) for one in all_providers().values() if one.agent is not None), None)
    if found is None:
        return None
    provider, agent = found
    return {
        "id": AGENT,
        "object": "model",
        "created": _CREATED,
        "owned_by": provider.name,
        "kind": "chat",
        "model_name": agent.name,
        "model_tip": agent.tip,
        "model_req_key": agent.key,
        "alias_of": None,
        "remark": None,
        "resolutions": [],
        "counts": [],
        "default_count": 0,
        "references": 0,
        "regions": list(agent.where),
    }


def _model(model: ImageModel, name: str, regions: set[str], offer: UpstreamModels) -> dict[str, Any]:
    upstream_name, upstream_tip = offer.name_and_tip(model)
    return {
        "id": name,
        "object": "model",
        "created": _CREATED,
        "owned_by": model.provider,
        "kind": "image",
        "model_name": upstream_name or model.name,
        "model_tip": _tip(model, upstream_tip),
        "model_req_key": model.upstream_key(next(iter(regions))) if len(regions) == 1 else model.key,
        "alias_of": None if name == model.id else model.id,
        "remark": _remark(model, name),
        "resolutions": list(model.resolutions),
        "counts": list(model.counts),
        "default_count": model.default_count,
        "references": model.references,
        "regions": sorted(model.where),
    }


def _video_model(model: VideoModel, name: str) -> dict[str, Any]:
    lengths = f"{', '.join(str(seconds) for seconds in sorted(model.durations))} s"
    return {
        "id": name,
        "object": "model",
        "created": _CREATED,
        "owned_by": model.provider,
        "kind": "video",
        "model_name": model.name,
        "model_tip": f"{model.name}: {', '.join(model.resolutions)}; {lengths}",
        "model_req_key": model.key,
        "alias_of": None if name == model.id else model.id,
        "remark": _remark(model, name),
        "resolutions": list(model.resolutions),
        "counts": [1],
        "default_count": 1,
        "references": 9 if model.omni else model.first_frame + model.end_frame,
        "regions": sorted(model.where),
        "durations": list(model.durations),
        "ratios": list(model.ratios),
        "fps": [24],
        "first_frame": model.first_frame,
        "end_frame": model.end_frame,
        "omni": model.omni,
    }


@router.get(
    "",
    summary="List models",
    responses={200: {"model": ModelList, "description": "The models."}, **error_responses(401)},
)
async def list_models(caller: CallerDep) -> Response:
    """Lists every model and alias; with session ids, those that the region of at least one of them offers.

    Names, tips, sizes and counts come from upstream once the accounts' lists were read. A model that only upstream
    lists has upstream's key as its id.
    """
    regions, offer = _regions(caller), await read_offer_or_empty(caller)
    catalog = get_catalog()
    models: list[ImageModel | VideoModel] = [*offer.image_models(catalog), *catalog.video_models]
    data = [
        _video_model(model, name) if isinstance(model, VideoModel) else _model(model, name, regions, offer)
        for model in models
        if model.provider in offer.providers
        if not regions or any(_is_offered(model, region) for region in regions) or offer.lists(model)
        for name in (model.id, *model.aliases)
    ]
    return json_response({"object": "list", "data": [*data, *filter(None, [_agent()])]})


@router.get(
    "/{model_id:path}",
    summary="Get a model",
    responses={200: {"model": Model, "description": "The model."}, **error_responses(401, 404)},
)
async def get_model(model_id: str, caller: CallerDep) -> Response:
    """Returns a model by id or alias, in any region; ids may contain slashes and colons."""
    catalog = get_catalog()
    if model_id == AGENT and (agent := _agent()):
        return json_response(agent)
    if catalog.knows_video(model_id):
        return json_response(_video_model(catalog.video_model(model_id), model_id))
    offer = await read_offer_or_empty(caller)
    return json_response(_model(offer.image_model(catalog, model_id), model_id, _regions(caller), offer))
