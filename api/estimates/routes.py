"""`POST /v1/estimate`: what a creating call would cost, before it is made."""

from fastapi import APIRouter, Request, Response

from api.auth.dependencies import MakerDep
from api.estimates.estimation import estimate
from api.estimates.schemas import Estimate, EstimateRequest
from api.http.body_parsing import body_docs, read_body
from api.http.errors import error_responses
from api.http.responses import json_response

router = APIRouter(tags=["jobs"])


@router.post(
    "/v1/estimate",
    summary="Ask what a creating call would cost",
    responses={
        200: {"model": Estimate, "description": "Price, wait, accounts; nothing was made."},
        **error_responses(400, 401, 403, 404, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=body_docs(EstimateRequest, form=False),
)
async def create_estimate(request: Request, caller: MakerDep) -> Response:
    """Checks `body` as the call at `endpoint` would, with the same errors for what is wrong with it.

    What depends on the moment (no account, no credits, too many open jobs) is in `refusals` of a 200. A price that is
    not known is null, and `known` false: the job is accepted all the same.
    """
    wish = await read_body(request, EstimateRequest)
    return json_response(await estimate(wish, caller))
