"""Every failure as the OpenAI error object: a status and `{"error": {message, type, param, code}}`, all four keys."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from worker.core.errors import DreameryError, ErrorKind
from worker.core.observability.logging import get_logger
from worker.db.engine import AWAY_ERRORS

log = get_logger("api")

_AWAY_RETRY_SECONDS = 5
# Where clients knock that were set up for something else; most front ends show the message and nothing more.
_HINTS = {
    "/v1/responses": "The Responses API is not offered: set the client to chat completions or images "
    "(AI SDK: `openai.chat(model)` or `openai.image(model)`).",
    "/v1/completions": "Completions are not offered: use /v1/chat/completions.",
    "/chat/completions": "The base URL must end in /v1: use /v1/chat/completions.",
    "/v1/chat": "Use POST /v1/chat/completions.",
    "/v1/embeddings": "No model here makes embeddings: choose another provider for them.",
    "/v1/audio": "No model here hears or speaks: choose another provider for sound.",
    "/v1/moderations": "Moderation is not offered: choose another provider for it.",
    "/v1/assistants": "Assistants are not offered: use /v1/chat/completions.",
    "/v1/threads": "Threads are not offered: use /v1/chat/completions.",
    "/v1/realtime": "The Realtime API is not offered: use /v1/chat/completions with `stream`.",
    "/v1/messages": "Anthropic's API is not offered: use /v1/chat/completions.",
    "/v1/images/variations": "Variations are not offered: use /v1/images/generations.",
    "/images": "The base URL must end in /v1: use /v1/images/generations.",
    "/models": "The base URL must end in /v1: use /v1/models.",
    "/v1": "Offered are /v1/chat/completions, /v1/images/generations, /v1/models and /v1/jobs; see /docs.",
}
_DESCRIPTIONS = {
    400: "The request cannot be carried out as it is, or upstream refused its content.",
    401: "No valid key, or upstream does not know the session.",
    403: "The key, the link or the upstream account may not do that.",
    404: "No such model, job, file, webhook or URL.",
    409: "The job was cancelled, or the webhook endpoint is disabled.",
    410: "The result is past its retention and was removed.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    416: "No byte of the file is in that range.",
    422: "The Idempotency-Key was used with another request.",
    429: "Too many requests, a limit of yours is reached, or no credits are left. With `x-should-retry: false` do not "
    "repeat: a job was accepted, or the limit resets later.",
    500: "A fault of this server.",
    502: "Upstream failed. The job was accepted: do not repeat.",
    503: "Nothing can be accepted now. Try again after `Retry-After`.",
    504: "The wait is over; the job named in `X-Job-Id` goes on.",
}


@dataclass(slots=True)
class Language:
    """In which language a request is told what went wrong, and whether its answer depended on that (`Vary`)."""

    chinese: bool = False
    mattered: bool = False


_language: ContextVar[Language] = ContextVar("language")


def speak(accept_language: str) -> Language:
    """Choose the language of this request's error texts: Chinese where `Accept-Language` likes it best."""
    best, liked = "", 0.0
    for part in accept_language.split(","):
        name, _, quality = part.strip().lower().partition(";")
        try:
            weight = float(quality.strip().removeprefix("q=") or 1) if quality else 1.0
        except ValueError:
            weight = 0.0
        if weight > liked:
            best, liked = name.strip(), weight
    language = Language(chinese=best == "zh" or best.startswith("zh-"))
    _language.set(language)
    return language


def told(kind: ErrorKind, message: str | None) -> str:
    """The text of an error in the language of the request that is being answered."""
    language = _language.get(None)
    if language is None:
        return message or kind.message
    language.mattered = True
    return kind.said_in_chinese(message) if language.chinese else message or kind.message


class ErrorObject(BaseModel):
    """What went wrong."""

    message: str = Field(description="what happened and what to do about it")
    type: str = Field(description="OpenAI's class of error", examples=["invalid_request_error"])
    param: str | None = Field(description="the field that is wrong")
    code: str = Field(description="stable: never changes meaning", examples=["invalid_value"])


class ErrorBody(BaseModel):
    """The body of every error answer."""

    error: ErrorObject


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route in the OpenAPI document: these statuses, and any other, carry the error object."""
    documented: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody, "description": _DESCRIPTIONS[status]} for status in statuses
    }
    return documented | {"default": {"model": ErrorBody, "description": "Any other failure."}}


def error_body(kind: ErrorKind, message: str | None = None, param: str | None = None) -> dict[str, Any]:
    """The body of an error answer."""
    fields = {"message": told(kind, message), "type": kind.type, "param": param, "code": kind.code}
    # Names and values of a bad request may hold lone surrogates, which no body can carry.
    return {"error": {name: text and text.encode(errors="replace").decode() for name, text in fields.items()}}


def error_response(
    error: DreameryError, *, headers: Mapping[str, str] | None = None, status: int | None = None
) -> JSONResponse:
    """The answer for a failure of ours. Retry-After is 1..60 s: SDKs give up on larger values, or sleep them out."""
    extra = {**(headers or {}), **error.headers}
    if error.retry_after is not None:
        extra["Retry-After"] = str(min(max(error.retry_after, 1), 60))
    status = status or error.kind.status
    if status == 401:
        extra["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error_body(error.kind, error.message, error.param), status_code=status, headers=extra)


def fault_response(scope_state: Mapping[str, Any], code: str, *, retry_after: int | None = None) -> JSONResponse:
    """The answer for a failure that is not the caller's doing. Once a job was accepted it says where the job is."""
    job_id = scope_state.get("job_id")
    if job_id is None or not scope_state.get("accepted"):
        return error_response(DreameryError(code, retry_after=retry_after))
    message = (
        f"Something went wrong here, but job {job_id} was accepted. Ask for it at /v1/jobs/{job_id}; do not repeat."
    )
    return error_response(DreameryError(code, message))


def _from_validation(error: RequestValidationError, content_type: str) -> DreameryError:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"] if part not in {"body", "query", "path", "header"}]
    param = ".".join(location) or None
    if first["type"] == "json_invalid":
        return DreameryError(
            "invalid_json", f"The body is not valid JSON: {first['ctx'].get('error', 'cannot parse')}."
        )
    if param is None:
        return _without_fields(missing=first["type"] == "missing", content_type=content_type)
    if first["type"] == "missing":
        return DreameryError("missing_required_parameter", f"Missing required parameter: {param!r}.", param=param)
    message = str(first["msg"]).removeprefix("Value error, ")
    return DreameryError("invalid_value", f"Invalid value for {param!r}: {message}.".replace("..", "."), param=param)


def _without_fields(*, missing: bool, content_type: str) -> DreameryError:
    if missing:
        return DreameryError("invalid_json", "A JSON body is required (Content-Type: application/json).")
    kind = content_type.partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        return DreameryError("unsupported_media_type", f"The body must be application/json, not {kind[:80]!r}.")
    return DreameryError("invalid_json", 'The body must be a JSON object, such as {"prompt": "a boat"}.')


def _from_http(error: HTTPException, request: Request) -> DreameryError:
    if error.status_code == 405:
        return DreameryError("method_not_allowed", f"{request.url.path} does not take {request.method}.")
    if error.status_code == 404:
        hint = _hint(request.url.path)
        return DreameryError("unknown_url", f"Unknown URL: {request.method} {request.url.path}. {hint}")
    if error.status_code == 413:
        return DreameryError("request_too_large", error.detail)
    if error.status_code == 408:
        return DreameryError("request_incomplete")
    return DreameryError("invalid_json" if error.status_code < 500 else "internal_error")


def _hint(path: str) -> str:
    """The words for the longest beginning of the path that is known."""
    while path and path not in _HINTS:
        path = path.rpartition("/")[0]
    return _HINTS.get(path, "See /docs.")


def install_error_handlers(app: FastAPI) -> None:
    """Route every exception of the framework and ours into the one shape."""

    @app.exception_handler(DreameryError)
    async def ours(_request: Request, error: DreameryError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(_from_validation(error, request.headers.get("content-type", "")))

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> JSONResponse:
        kept = ("Allow", "Connection")
        headers = {name: value for name, value in (error.headers or {}).items() if name in kept}
        return error_response(_from_http(error, request), headers=headers)

    async def away(request: Request, error: Exception) -> JSONResponse:
        log.warning("database_away", path=request.url.path, reason=type(error).__name__)
        return fault_response(request.scope.get("state", {}), "overloaded", retry_after=_AWAY_RETRY_SECONDS)

    for kind in AWAY_ERRORS:
        app.add_exception_handler(kind, away)
