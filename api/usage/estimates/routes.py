"""`POST /v1/estimate`: the cost of a generation call before it is made."""

from fastapi import APIRouter, Request, Response

from api.auth.dependencies import GenerateDep
from api.generation.variants.request_matrix import expand_matrix
from api.http.bodies.received import received_body
from api.http.body_parsing import body_openapi, parse_body
from api.http.errors import error_responses
from api.http.responses import json_response
from api.usage.estimates.estimation import estimate
from api.usage.estimates.many_calls import estimate_many
from api.usage.estimates.schemas import MOST_REQUESTS, Estimate, EstimateOfMany, EstimateRequest, PlannedCall
from worker.core.errors import DreameryError

router = APIRouter(tags=["jobs"])


@router.post(
    "/v1/estimate",
    summary="Estimate the cost of a generation call",
    responses={
        200: {
            "model": Estimate | EstimateOfMany,
            "description": "Price, waiting time and accounts; nothing was created.",
        },
        **error_responses(400, 401, 403, 404, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=body_openapi(EstimateRequest, form=False),
)
async def create_estimate(request: Request, caller: GenerateDep) -> Response:
    """Validates `body` like the call at `endpoint`, with the same errors.

    Temporary obstacles (no account, no credits, too many open jobs) are in `refusals` of a 200. An unknown price is
    null with `known` false; the call itself would still be accepted.

    Many calls at once, as `requests` or as a `matrix`, are answered with a line for each, its error if it has one, and
    the totals. Limits are checked for all of them together.
    """
    body = await parse_body(request, EstimateRequest)
    if (calls := _calls(body)) is not None:
        return json_response(await estimate_many(calls, caller, received_body(request)))
    if body.endpoint is None or body.body is None:
        missing = "endpoint" if body.endpoint is None else "body"
        raise DreameryError("missing_required_parameter", f"Missing required parameter: {missing!r}.", param=missing)
    call = PlannedCall(endpoint=body.endpoint, body=body.body)
    return json_response(await estimate(call, caller, received_body(request)))


def _calls(body: EstimateRequest) -> list[PlannedCall] | None:
    """Return the calls of a request for many; None = it is for one."""
    given = {"endpoint": body.endpoint, "requests": body.requests, "matrix": body.matrix}
    several = [name for name, value in given.items() if value is not None]
    if len(several) > 1:
        message = f"`{several[0]}` and `{several[1]}` exclude each other. Send one of them."
        raise DreameryError("invalid_value", message, param=several[1])
    if body.matrix is not None:
        expanded = expand_matrix(body.matrix, most=MOST_REQUESTS)
        return [PlannedCall.model_construct(endpoint=one.endpoint, body=one.body) for one in expanded]
    return body.requests
