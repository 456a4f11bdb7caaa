"""Account checks, as users of other gateways call them: does a session id live, what is left, take the day's credits.

A worker asks upstream (`api/accounts/session_checks.py`); tokens in answers are masked.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import HTTPBearer

from api.accounts.session_check_schemas import TokenResult, TokenCheck, TokenLive
from api.accounts.session_checks import Result, Tokens, run_checks
from api.auth.dependencies import Caller, CallerDep, get_caller
from api.auth.session_tokens import parse_session_tokens
from api.http.body_parsing import body_openapi, parse_body
from api.http.errors import error_body, error_responses
from api.http.responses import json_response
from worker.core.errors import ERRORS, DreameryError
from worker.core.security.session_tokens import masked
from worker.core.settings import get_settings

router = APIRouter(prefix="/token", tags=["session ids"])

_BEARER = HTTPBearer(auto_error=False, description="an API key, where session ids are switched off")
_ERRORS = error_responses(400, 401, 415, 429, 502, 503, 504)
_LIST: dict[int | str, dict[str, Any]] = {
    200: {"model": list[TokenResult], "description": "One entry for each session id, in order."},
    **_ERRORS,
}


_TIMED_OUT: dict[str, Any] = {"error": {"code": "check_timeout", "message": None}}


async def _require_caller_if_tokens_disabled(request: Request, _scheme: Annotated[object, Depends(_BEARER)] = None) -> None:
    """The token to check is in the body, so no key is needed; but where session ids are off, strangers check none."""
    if not get_settings().session_tokens:
        await get_caller(request)


@router.post(
    "/check",
    summary="Does a session id live?",
    dependencies=[Depends(_require_caller_if_tokens_disabled)],
    openapi_extra=body_openapi(TokenCheck, form=False),
    responses={200: {"model": TokenLive, "description": "What upstream says."}, **_ERRORS},
)
async def check_token(request: Request) -> Response:
    """`{"live": true}` when upstream knows the session, also when it will draw nothing for it today."""
    body = await parse_body(request, TokenCheck)
    try:
        tokens = parse_session_tokens(body.token)
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


@router.post("/points", summary="Credits of session ids", responses=_LIST)
async def token_points(request: Request, caller: CallerDep) -> Response:
    """What each session id of the `Authorization` list has left. One that fails says why, the others are told."""
    return await _check_tokens(request, caller, "points")


@router.post("/receive", summary="Take the day's free credits", responses=_LIST)
async def token_receive(request: Request, caller: CallerDep) -> Response:
    """Takes the daily credits of each session id; `received` is 0 when there were none. Repeating is harmless."""
    return await _check_tokens(request, caller, "receive")


async def _check_tokens(request: Request, caller: Caller, what: str) -> Response:
    if not caller.tokens:
        message = (
            "This tells the credits of upstream session ids: send those as `Authorization: Bearer <session id>`, "
            "not an API key."
        )
        raise DreameryError("invalid_value", message, param="Authorization")
    results = await run_checks(request, what, caller.tokens)
    if not any(results):
        raise DreameryError("check_timeout")
    return json_response(_entries(caller.tokens, results, what))


def _entries(tokens: Tokens, results: list[Result], what: str) -> list[dict[str, Any]]:
    entries = []
    for (_, token), result in zip(tokens, results, strict=True):
        told = _TIMED_OUT if result is None else result
        entry: dict[str, Any] = {"token": masked(token), "points": told.get("points")}
        if what == "receive":
            # Gateways differ in the name of the same numbers.
            entry |= {"credits": entry["points"], "received": told.get("received", 0)}
        if "error" in told:
            entry |= error_body(ERRORS[told["error"]["code"]], told["error"]["message"])
        entries.append(entry)
    return entries
