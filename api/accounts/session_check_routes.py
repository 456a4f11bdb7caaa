"""Session id checks compatible with other gateways: validity, remaining credits, claiming the daily credits.

A worker calls upstream (`api/accounts/session_checks.py`); session ids in responses are masked.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import HTTPBearer

from api.accounts.session_check_schemas import TokenCheck, TokenLive, TokenResult
from api.accounts.session_checks import Result, Tokens, run_checks
from api.auth.caller import Caller
from api.auth.dependencies import CallerDep, get_caller
from api.auth.known_keys import resolve_tokens
from api.http.body_parsing import body_openapi, parse_body
from api.http.errors import error_body, error_responses
from api.http.responses import json_response
from worker.core.errors import ERRORS, DreameryError
from worker.core.security.session_tokens import mask_token
from worker.core.settings import get_settings

router = APIRouter(prefix="/token", tags=["session ids"])

_BEARER = HTTPBearer(auto_error=False, description="an API key, required when session ids are disabled")
_ERRORS = error_responses(400, 401, 415, 429, 502, 503, 504)
_LIST: dict[int | str, dict[str, Any]] = {
    200: {"model": list[TokenResult], "description": "One entry per session id, in order."},
    **_ERRORS,
}


_TIMED_OUT: dict[str, Any] = {"error": {"code": "check_timeout", "message": None}}


async def _require_caller_if_tokens_disabled(
    request: Request, _scheme: Annotated[object, Depends(_BEARER)] = None
) -> None:
    """The token is in the body, so no key is needed; when session ids are disabled, an API key is required."""
    if not get_settings().session_tokens:
        await get_caller(request)


@router.post(
    "/check",
    summary="Check whether a session id is valid",
    dependencies=[Depends(_require_caller_if_tokens_disabled)],
    openapi_extra=body_openapi(TokenCheck, form=False),
    responses={200: {"model": TokenLive, "description": "Whether the session id is valid."}, **_ERRORS},
)
async def check_token(request: Request) -> Response:
    """Returns `{"live": true}` when upstream accepts the session, even if it cannot generate anything today."""
    body = await parse_body(request, TokenCheck)
    try:
        tokens = await resolve_tokens(body.token)
    except DreameryError as error:
        raise DreameryError("invalid_value", error.message, param="token") from None
    if len(tokens) > 1:
        raise DreameryError("invalid_value", "`token` must be one session id, not a list.", param="token")
    [result] = await run_checks(request, "check", tokens)
    if result is None:
        raise DreameryError("check_timeout")
    if "error" in result:
        raise DreameryError(result["error"]["code"], result["error"]["message"])
    return json_response({"live": result["live"]})


@router.post("/points", summary="Get the credits of session ids", responses=_LIST)
async def token_points(request: Request, caller: CallerDep) -> Response:
    """Returns the remaining credits of each session id in `Authorization`. A failed entry carries its own error."""
    return await _check_tokens(request, caller, "points")


@router.post("/receive", summary="Claim the daily free credits", responses=_LIST)
async def token_receive(request: Request, caller: CallerDep) -> Response:
    """Claims the daily credits of each session id; `received` is 0 when there were none. Repeating is harmless."""
    return await _check_tokens(request, caller, "receive")


async def _check_tokens(request: Request, caller: Caller, action: str) -> Response:
    if not caller.tokens:
        message = (
            "This call needs upstream session ids: send them as `Authorization: Bearer <session id>`, not an API key."
        )
        raise DreameryError("invalid_value", message, param="Authorization")
    results = await run_checks(request, action, caller.tokens)
    if not any(results):
        raise DreameryError("check_timeout")
    return json_response(_entries(caller.tokens, results, action))


def _entries(tokens: Tokens, results: list[Result], action: str) -> list[dict[str, Any]]:
    entries = []
    for (_, token), result in zip(tokens, results, strict=True):
        outcome = _TIMED_OUT if result is None else result
        entry: dict[str, Any] = {"token": mask_token(token), "points": outcome.get("points")}
        if action == "receive":
            # Other gateways use different names for the same numbers.
            entry |= {"credits": entry["points"], "received": outcome.get("received", 0)}
        if "error" in outcome:
            entry |= error_body(ERRORS[outcome["error"]["code"]], outcome["error"]["message"])
        entries.append(entry)
    return entries
