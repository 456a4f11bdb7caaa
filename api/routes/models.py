"""The model list, OpenAI's shape with the upstream key beside it."""

from typing import Any

from fastapi import APIRouter, Response

from api.deps import CallerDep
from api.errors import error_responses
from api.render import json_response
from api.schemas import Model, ModelList
from worker.core.catalog import ImageModel, get_catalog

router = APIRouter(prefix="/v1/models", tags=["models"])

# Models have no birthday upstream; clients only want an integer.
_CREATED = 1_763_000_000


def _model(model: ImageModel, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": _CREATED,
        "owned_by": "dreamina",
        "kind": "image",
        "model_name": model.name,
        "model_req_key": model.key,
        "resolutions": list(model.resolutions),
        "counts": list(model.counts),
        "default_count": model.default_count,
        "references": model.references,
        "regions": sorted(model.where),
    }


@router.get(
    "",
    summary="List models",
    responses={200: {"model": ModelList, "description": "The models."}, **error_responses(401)},
)
async def list_models(_caller: CallerDep) -> Response:
    """Every model and alias."""
    names = [(model, name) for model in get_catalog().image_models for name in (model.id, *model.aliases)]
    return json_response({"object": "list", "data": [_model(model, name) for model, name in names]})


@router.get(
    "/{model_id:path}",
    summary="Get a model",
    responses={200: {"model": Model, "description": "The model."}, **error_responses(401, 404)},
)
async def get_model(model_id: str, _caller: CallerDep) -> Response:
    """One model by id or alias."""
    return json_response(_model(get_catalog().image_model(model_id), model_id))
