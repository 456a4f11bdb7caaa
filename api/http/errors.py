"""Every failure as an OpenAI error object: a status and `{"error": {message, type, param, code}}`, all four keys."""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from api.http.clients.logged_paths import logged_path
from worker.core.errors import DreameryError, ErrorKind
from worker.core.messages.chinese import chinese_message, translate
from worker.core.observability.logging import get_logger
from worker.db.engine import (
    DATABASE_UNAVAILABLE_ERRORS,
    is_database_away,
    reason_for_callers,
    reason_for_operators,
)

log = get_logger("api")

_AWAY_RETRY_SECONDS = 5
# Headers of the framework's errors that the response keeps.
_KEPT_HEADERS = ("Allow", "Connection")
# URLs that misconfigured clients call; most front ends show only the message.
_HINTS = {
    "/v1/responses": "The Responses API is not offered: set the client to chat completions or images "
    "(AI SDK: `openai.chat(model)` or `openai.image(model)`).",
    "/v1/completions": "Completions are not offered: use /v1/chat/completions.",
    "/chat/completions": "The base URL must end in /v1: use /v1/chat/completions.",
    "/v1/chat": "Use POST /v1/chat/completions.",
    "/v1/embeddings": "Embeddings are not offered: choose another provider for them.",
    "/v1/audio": "Speech and transcription are not offered: choose another provider for audio.",
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
_MAX_HINTED_CHARS = 100  # longer than each of these URLs
_DESCRIPTIONS = {
    400: "The request is invalid, or upstream refused its content.",
    401: "The key is missing or invalid, or upstream does not know the session id.",
    403: "The key, the link or the upstream account does not allow this.",
    404: "The model, job, file, webhook or URL does not exist.",
    409: "The job was cancelled, or the webhook endpoint is disabled.",
    410: "The result is past its retention and was removed.",
    413: "The body is too large.",
    415: "The body has an unsupported content type.",
    416: "The range is outside the file.",
    422: "The Idempotency-Key was used with another request.",
    429: "Too many requests, one of your limits is reached, or no credits are left. Do not retry when "
    "`x-should-retry` is `false`: a job was accepted, or the limit resets later.",
    500: "Internal error of this server.",
    502: "Upstream failed. The job was accepted: do not retry.",
    503: "The server accepts no jobs at the moment. Try again after `Retry-After` seconds.",
    504: "The wait timed out; the job named in `X-Job-Id` continues.",
}


@dataclass(slots=True)
class Language:
    """Language of a request's error messages, and whether its response used it (`Vary`)."""

    chinese: bool = False
    used: bool = False


_language: ContextVar[Language] = ContextVar("language")


def select_language(accept_language: str) -> Language:
    """Choose the language of this request's error messages: Chinese if `Accept-Language` ranks it first."""
    best, best_weight = "", 0.0
    for part in accept_language.split(","):
        name, _, quality = part.strip().lower().partition(";")
        try:
            weight = float(quality.strip().removeprefix("q=") or 1) if quality else 1.0
        except ValueError:
            weight = 0.0
        if weight > best_weight:
            best, best_weight = name.strip(), weight
    language = Language(chinese=best == "zh" or best.startswith("zh-"))
    _language.set(language)
    return language


def is_chinese() -> bool:
    """Return whether the current request asks for Chinese."""
    language = _language.get(None)
    if language is None:
        return False
    language.used = True
    return language.chinese


def localized_text(text: str | None) -> str | None:
    """Return a text of ours, such as why a delivery failed, in the language of the current request."""
    return (translate(text) or text) if text and is_chinese() else text


def localized_message(kind: ErrorKind, message: str | None) -> str:
    """Return the message of an error in the language of the current request."""
    language = _language.get(None)
    if language is None:
        return message or kind.message
    language.used = True
    return chinese_message(kind, message) if language.chinese else message or kind.message


class BodyReadError(HTTPException):
    """A failure while the body is received. Only an HTTPException passes the framework's body reading unchanged."""

    def __init__(self, reason: DreameryError) -> None:
        super().__init__(reason.kind.status, reason.message)
        self.reason = reason


class ErrorObject(BaseModel):
    """The error."""

    message: str = Field(description="what happened and how to fix it")
    type: str = Field(description="OpenAI's class of error", examples=["invalid_request_error"])
    param: str | None = Field(description="the invalid field")
    code: str = Field(description="stable: never changes meaning", examples=["invalid_value"])


class ErrorBody(BaseModel):
    """Body of every error response."""

    error: ErrorObject


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` of a route: these statuses, and the default, carry the error object."""
    described: dict[int | str, str] = {status: _DESCRIPTIONS[status] for status in statuses}
    described["default"] = "Any other failure."
    return {status: {"description": text, "content": _error_content()} for status, text in described.items()}


def _error_content() -> dict[str, Any]:
    # A reference instead of `model`: the framework would build a validator for each status of each route at the start.
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{ErrorBody.__name__}"}}}


def error_body(kind: ErrorKind, message: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Build the body of an error response."""
    fields = {"message": localized_message(kind, message), "type": kind.type, "param": param, "code": kind.code}
    # Names and values of an invalid request may contain unpaired surrogates, which UTF-8 cannot encode.
    return {"error": {name: text and text.encode(errors="replace").decode() for name, text in fields.items()}}


def error_response(
    error: DreameryError, *, headers: Mapping[str, str] | None = None, status: int | None = None
) -> JSONResponse:
    """Build an error response. Retry-After is limited to 1..60 s: SDKs ignore larger values or sleep for that long."""
    extra = {**(headers or {}), **error.headers}
    if error.retry_after is not None:
        extra["Retry-After"] = str(min(max(error.retry_after, 1), 60))
    status = status or error.status
    if status == 401:
        extra["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error_body(error.kind, error.message, error.param), status_code=status, headers=extra)


def server_fault_response(
    scope_state: Mapping[str, Any], code: str, reason: str | None = None, *, retry_after: int | None = None
) -> JSONResponse:
    """Build the response for a server-side failure. If a job was accepted, the message says where to find it."""
    job_id = scope_state.get("job_id")
    if job_id is None or not scope_state.get("accepted"):
        return error_response(DreameryError(code, reason, retry_after=retry_after))
    message = (
        f"An error occurred, but job {job_id} was accepted. Get it at /v1/jobs/{job_id}; do not retry this request."
    )
    return error_response(DreameryError(code, message))


# Where a field takes several kinds of values, the validator names the kind after the field.
_KIND_OF_VALUE = re.compile(r"constrained-(?:float|int|str)|(?:function-\w+|literal|nullable)\[.*\]")


def request_error(error: RequestValidationError, content_type: str = "application/json") -> DreameryError:
    """Return the error of a body that does not fit its schema, as the response says it."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"] if part not in {"body", "query", "path", "header"}]
    location = [part for part in location if not _KIND_OF_VALUE.fullmatch(part)]
    param = ".".join(location) or None
    if first["type"] == "json_invalid":
        return DreameryError(
            "invalid_json", f"The body is not valid JSON: {first['ctx'].get('error', 'cannot parse')}."
        )
    message = str(first["msg"]).removeprefix("Value error, ")
    if param is None and first["type"] == "value_error":
        # Several fields do not fit together: the message of the schema names them.
        return DreameryError("invalid_value", message)
    if param is None:
        return _body_error(missing=first["type"] == "missing", content_type=content_type)
    if first["type"] == "missing":
        return DreameryError("missing_required_parameter", f"Missing required parameter: {param!r}.", param=param)
    return DreameryError("invalid_value", f"Invalid value for {param!r}: {message}.".replace("..", "."), param=param)


def _body_error(*, missing: bool, content_type: str) -> DreameryError:
    if missing:
        return DreameryError("invalid_json", "A JSON body is required (Content-Type: application/json).")
    kind = content_type.partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        return DreameryError("unsupported_media_type", f"The body must be application/json, not {kind[:80]!r}.")
    return DreameryError("invalid_json", 'The body must be a JSON object, such as {"prompt": "a boat"}.')


def _with_sent_name(error: DreameryError, request: Request) -> DreameryError:
    """Name the field of an error as the client spelled it, for example `aspectRatio` instead of `ratio`."""
    name, dot, rest = (error.param or "").partition(".")
    sent = getattr(request.state, "sent_names", {}).get(name)
    if sent is None:
        return error
    message = re.sub(rf"(?<=[`']){re.escape(name)}(?=[.`'])", lambda _: sent, error.message)
    return DreameryError(
        error.code, message, param=f"{sent}{dot}{rest}", retry_after=error.retry_after, headers=error.headers
    )


def _http_error(error: HTTPException, request: Request) -> DreameryError:
    if error.status_code == 405:
        return DreameryError("method_not_allowed", f"{request.url.path} does not support {request.method}.")
    if error.status_code == 404:
        hint = _hint(request.url.path)
        return DreameryError("unknown_url", f"Unknown URL: {request.method} {request.url.path}. {hint}")
    if error.status_code == 413:
        return DreameryError("request_too_large", error.detail)
    if error.status_code == 408:
        return DreameryError("request_incomplete")
    return DreameryError("invalid_json" if error.status_code < 500 else "internal_error")


def _hint(path: str) -> str:
    """The hint for the longest known prefix of the path."""
    path = path[:_MAX_HINTED_CHARS]
    while path and path not in _HINTS:
        path = path.rpartition("/")[0]
    return _HINTS.get(path, "See /docs.")


def install_error_handlers(app: FastAPI) -> None:
    """Turn every exception, ours and the framework's, into an OpenAI error object."""

    @app.exception_handler(DreameryError)
    async def dreamery_error(request: Request, error: DreameryError) -> JSONResponse:
        return error_response(_with_sent_name(error, request))

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        invalid = request_error(error, request.headers.get("content-type", ""))
        return error_response(_with_sent_name(invalid, request))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error, BodyReadError):
            return error_response(error.reason)
        headers = {name: value for name, value in (error.headers or {}).items() if name in _KEPT_HEADERS}
        return error_response(_http_error(error, request), headers=headers)

    async def database_unavailable(request: Request, error: Exception) -> JSONResponse:
        log.warning("database_away", path=logged_path(request.url.path), reason=reason_for_operators(error))
        reason = f"{reason_for_callers(error)} Try again later." if is_database_away(error) else None
        state = request.scope.get("state", {})
        return server_fault_response(state, "overloaded", reason, retry_after=_AWAY_RETRY_SECONDS)

    for kind in DATABASE_UNAVAILABLE_ERRORS:
        app.add_exception_handler(kind, database_unavailable)
