"""The model list in OpenAI's format, with fields that clients of other gateways read."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.auth.dependencies import CallerDep
from api.generation.model_availability import read_offer_or_empty
from api.generation.models.agent import AGENT, agent_of
from api.generation.models.details import read_details
from api.generation.models.form import fields_of
from api.generation.models.schemas import Model, ModelList
from api.http.errors import error_responses
from api.http.responses import base_url, json_response
from worker.core.catalog.models import Catalog, ImageModel, VideoModel, get_catalog
from worker.core.catalog.upstream_models import UpstreamModels

router = APIRouter(prefix="/v1/models", tags=["models"])

# Upstream gives no creation time; clients only need an integer.
_CREATED = 1_763_000_000
# Images that a form offers at once where each is a job of its own.
_SINGLE_JOBS = 4


def _agent(offer: UpstreamModels) -> dict[str, Any] | None:
    """Return the agent, which is not in the catalog: upstream chooses the models it calls; None = not offered."""
    provider = agent_of(offer)
    if provider is None or provider.agent is None:
        return None
    agent = provider.agent
    return {
        "id": AGENT,
        "object": "model",
        "created": _CREATED,
        "owned_by": provider.name,
        "provider": provider.name,
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
        "fields": [],
        "ends": {},
    }


def _regions(caller: Caller, provider: str) -> set[str]:
    """Return the regions of the caller's session ids; empty for the pool."""
    return {token.region for _, token in caller.tokens if token.provider == provider}


def _is_shown(model: ImageModel | VideoModel, caller: Caller, offer: UpstreamModels) -> bool:
    """Whether a list has the model: one of the caller's accounts offers it."""
    if model.provider not in offer.providers:
        return False
    regions = _regions(caller, model.provider) or offer.regions(model.provider)
    if not regions:
        return bool(model.sold_in)
    return any(model.is_listed_for(region) for region in regions) or offer.lists(model)


def _tip(model: ImageModel | VideoModel, upstream_tip: str) -> str:
    if upstream_tip:
        return upstream_tip
    sizes = f"{model.name}: {', '.join(model.resolutions)}"
    if isinstance(model, ImageModel):
        counts = f"1 to {model.max_per_job} images" if len(model.counts) > 1 else f"{model.default_count} images"
        return f"{sizes}; {'1 image' if model.default_count == 1 else counts} per job"
    return f"{sizes}; {', '.join(str(seconds) for seconds in sorted(model.durations))} s"


def _remark(model: ImageModel | VideoModel, name: str) -> str | None:
    if name == model.id or not get_catalog().is_built_in_name(name):
        return None
    return f"A name that tools have built in. Here it means {model.id}; the operator can map it to another model."


def _object(model: ImageModel | VideoModel, name: str, caller: Caller, offer: UpstreamModels) -> dict[str, Any]:
    upstream_name, upstream_tip = offer.name_and_tip(model)
    is_image = isinstance(model, ImageModel)
    regions = _regions(caller, model.provider)
    return {
        "id": name,
        "object": "model",
        "created": _CREATED,
        "owned_by": model.provider,
        "provider": model.provider,
        "kind": "image" if is_image else "video",
        "model_name": (upstream_name if is_image else "") or model.name,
        "model_tip": _tip(model, upstream_tip if is_image else ""),
        "model_req_key": model.upstream_key(next(iter(regions))) if len(regions) == 1 else model.key,
        "alias_of": None if name == model.id else model.id,
        "remark": _remark(model, name),
        "resolutions": list(model.resolutions),
        **(_image_facts(model) if isinstance(model, ImageModel) else _video_facts(model)),
        "regions": sorted(model.sold_in),
        "ratios": list(model.ratios),
        "fields": fields_of(model),
        "ends": {place: day.isoformat() for place, day in sorted(model.ends.items())},
    }


def _image_facts(model: ImageModel) -> dict[str, Any]:
    single = model.counts == (1,)
    return {
        "counts": list(range(1, max(_SINGLE_JOBS, model.max_set) + 1)) if single else list(model.counts),
        "default_count": model.default_count,
        "references": model.references,
        "formats": list(model.formats),
    }


def _video_facts(model: VideoModel) -> dict[str, Any]:
    images = model.references.images if model.omni else model.first_frame + model.end_frame
    return {
        "counts": [1],
        "default_count": 1,
        "references": images,
        "reference_videos": model.references.videos if model.omni else 0,
        "reference_audios": model.references.audios if model.omni else 0,
        "durations": list(model.durations),
        "fps": [model.fps],
        "first_frame": model.first_frame,
        "end_frame": model.end_frame,
        "frame_decides_ratio": model.frame_decides_ratio,
        "omni": model.omni,
    }


def _means(catalog: Catalog, offer: UpstreamModels, model: ImageModel | VideoModel, name: str) -> bool:
    """Whether a name means this model for the caller: models of several providers may have it."""
    if isinstance(model, ImageModel):
        if model.listed and catalog.find_image(model.id) is None:
            return True
        return offer.choose(catalog.image_route(name)).model.id == model.id
    return offer.choose(catalog.video_route(name)).model.id == model.id


@router.get(
    "",
    summary="List models",
    responses={200: {"model": ModelList, "description": "The models."}, **error_responses(401)},
)
async def list_models(
    request: Request,
    caller: CallerDep,
    *,
    details: Annotated[
        bool, Query(description="also price, usual time, a sample and whether you can use it, and all other models")
    ] = False,
) -> Response:
    """Lists every model and alias that an account of the caller offers; without any account, the usual ones.

    Names, tips, sizes and counts come from upstream once the accounts' lists were read. A model that only upstream
    lists has upstream's key as its id. A name that models of several providers have is listed once, as what it means.

    With `details=true` the list also has the models that no account of the caller offers (`listed` false), and says of
    each model what it costs and takes for this caller, from `available` on.
    """
    offer = await read_offer_or_empty(caller)
    catalog = get_catalog()
    models: list[ImageModel | VideoModel] = [*offer.image_models(catalog), *catalog.video_models]
    shown = [model for model in models if _is_shown(model, caller, offer)]
    data = [
        _object(model, name, caller, offer)
        for model in shown
        for name in (model.id, *model.aliases)
        if _means(catalog, offer, model, name)
    ]
    agent = _agent(offer)
    if not details:
        return json_response({"object": "list", "data": [*data, *([agent] if agent else [])]})
    names = {row["id"] for row in data}
    others = [model for model in models if model not in shown and model.sold_in and model.id not in names]
    found = await run_in_threadpool(partial(read_details, [*shown, *others], caller, offer, base_url(request)))
    rows = [{**row, "listed": True, **found[row["provider"], row["alias_of"] or row["id"]]} for row in data]
    rows += [
        {**_object(model, model.id, caller, offer), "listed": False, **found[model.provider, model.id]}
        for model in others
    ]
    return json_response({"object": "list", "data": [*rows, *([{**agent, "listed": True}] if agent else [])]})


@router.get(
    "/{model_id:path}",
    summary="Get a model",
    responses={200: {"model": Model, "description": "The model."}, **error_responses(401, 404)},
)
async def get_model(model_id: str, caller: CallerDep) -> Response:
    """Returns a model by id or alias, in any region; ids may contain slashes and colons."""
    catalog = get_catalog()
    offer = await read_offer_or_empty(caller)
    if model_id == AGENT and (agent := _agent(offer)) is not None:
        return json_response(agent)
    if catalog.knows_video(model_id):
        return json_response(_object(offer.choose(catalog.video_route(model_id)).model, model_id, caller, offer))
    return json_response(_object(offer.image_model(catalog, model_id), model_id, caller, offer))
