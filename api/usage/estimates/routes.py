"""`POST /v1/estimate`: the cost of a generation call before it is made."""

from fastapi import APIRouter, Request, Response

from api.auth.dependencies import GenerateDep
from api.http.bodies.received import received_body
from api.http.body_parsing import body_openapi, parse_body
from api.http.errors import error_responses
from api.http.responses import json_response
from api.usage.estimates.estimation import estimate
from api.usage.estimates.schemas import Estimate, EstimateRequest

router = APIRouter(tags=["jobs"])


@router.post(
    "/v1/estimate",
    summary="Estimate the cost of a generation call",
    responses={
        200: {"model": Estimate, "description": "Price, waiting time and accounts; nothing was created."},
        **error_responses(400, 401, 403, 404, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=body_openapi(EstimateRequest, form=False),
)
async def create_estimate(request: Request, caller: GenerateDep) -> Response:
    """Validates `body` like the call at `endpoint`, with the same errors.

    Temporary obstacles (no account, no credits, too many open jobs) are in `refusals` of a 200. An unknown price is
    null with `known` false; the call itself would still be accepted.
    """
    body = await parse_body(request, EstimateRequest)
    return json_response(await estimate(body, caller, received_body(request)))
