"""Every failure as the OpenAI error object: HTTP status plus `{"error": {message, type, param, code}}`, all four keys."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from worker.core.errors import DreameryError, ErrorKind


def error_body(kind: ErrorKind, message: str | None = None, param: str | None = None) -> dict[str, Any]:
    """The body of an error answer."""
    return {"error": {"message": message or kind.message, "type": kind.type, "param": param, "code": kind.code}}


def error_response(
    error: DreameryError, *, headers: Mapping[str, str] | None = None, status: int | None = None
) -> JSONResponse:
    """The answer for a failure of ours. Retry-After stays within 1..60 s: SDKs give up on, or sleep out, larger ones."""
    extra = dict(headers or {})
    if error.retry_after is not None:
        extra["Retry-After"] = str(min(max(error.retry_after, 1), 60))
    return JSONResponse(
        error_body(error.kind, error.message, error.param), status_code=status or error.kind.status, headers=extra
    )


def _from_validation(error: RequestValidationError) -> DreameryError:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"] if part not in {"body", "query", "path", "header"}]
    param = ".".join(location) or None
    if first["type"] == "json_invalid":
        return DreameryError(
            "invalid_json", f"The body is not valid JSON: {first['ctx'].get('error', 'cannot parse')}."
        )
    if first["type"] == "missing":
        if param is None:
            return DreameryError("invalid_json", "A JSON body is required (Content-Type: application/json).")
        return DreameryError("missing_required_parameter", f"Missing required parameter: {param!r}.", param=param)
    if param is None:
        return DreameryError("invalid_json", "The body must be a JSON object (Content-Type: application/json).")
    message = str(first["msg"]).removeprefix("Value error, ")
    return DreameryError("invalid_value", f"Invalid value for {param!r}: {message}.".replace("..", "."), param=param)


def _from_http(error: HTTPException) -> DreameryError:
    if error.status_code == 405:
        return DreameryError("method_not_allowed")
    if error.status_code == 404:
        return DreameryError("unknown_url")
    if error.status_code == 413:
        return DreameryError("request_too_large")
    return DreameryError("invalid_json" if error.status_code < 500 else "internal_error")


def install_error_handlers(app: FastAPI) -> None:
    """Route every exception of the framework and ours into the one shape."""

    @app.exception_handler(DreameryError)
    async def ours(_request: Request, error: DreameryError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(_from_validation(error))

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> JSONResponse:
        ours = _from_http(error)
        if ours.code == "unknown_url":
            ours = DreameryError("unknown_url", f"Unknown URL: {request.method} {request.url.path}. See /docs.")
        headers = {"Allow": error.headers["Allow"]} if error.headers and "Allow" in error.headers else {}
        return error_response(ours, headers=headers)
