"""Errors of the Ark-native endpoints: every error answer below `/api/v3` in the vendor's envelope and codes.

A middleware rewrites the answers, so that errors of all layers have the shape: of routes, of the authentication and of
the HTTP layer.
"""

import json
import re
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIX = "/api/v3/"
_DOUBLE_SLASHES = re.compile("/{2,}")
_MAX_ERROR_BYTES = 1_000_000
# Our code -> the vendor's. `{param}` = the name of the field, if there is one.
_CODES = {
    "invalid_value": "InvalidParameter",
    "missing_required_parameter": "MissingParameter.{param}",
    "unsupported_parameter": "InvalidParameter.UnsupportedParameter",
    "invalid_image": "InvalidImageURL.InvalidFormat",
    "input_unavailable": "InvalidImageURL.InvalidFormat",
    "content_policy_violation": "SensitiveContentDetected",
    "invalid_api_key": "AuthenticationError",
    "missing_api_key": "AuthenticationError",
    "upstream_session_expired": "AuthenticationError",
    "model_not_found": "InvalidEndpointOrModel.NotFound",
    "job_not_found": "NotFound.TaskNotFound",
    "video_not_found": "NotFound.TaskNotFound",
    "video_expired": "NotFound.TaskNotFound",
    "job_deleted": "NotFound.TaskNotFound",
    "job_cancelled": "OperationDenied.InvalidState",
    "job_not_finished": "OperationDenied.Running",
    "budget_exceeded": "SetLimitExceeded",
    "max_cost_exceeded": "SetLimitExceeded",
    "insufficient_quota": "AccountOverdueError",
    "daily_limit_reached": "QuotaExceeded",
    "queue_full": "QuotaExceeded",
    "too_many_open_requests": "QuotaExceeded",
    "request_too_large": "InvalidParameter",
}
# For all other codes.
_CODES_OF_STATUS = {
    401: "AuthenticationError",
    403: "AccessDenied",
    404: "NotFound",
    405: "InvalidAction",
    410: "NotFound",
    429: "AccountRateLimitExceeded",
    503: "ServerOverloaded",
}
_TYPES = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 429: "TooManyRequests"}


# The code in a message of upstream's, which says more than ours.
_QUOTED = re.compile(
    r"(?:Upstream refused the request \(|上游拒绝了该请求（)([A-Z][A-Za-z]{3,60}(?:\.[A-Z][A-Za-z]{1,60}){0,3})[)）]"
)


def vendor_code(code: str, status: int, param: str | None = None, *, message: str = "") -> str:
    """Return the vendor's code for an error of ours; that of upstream if the message names it."""
    quoted = _QUOTED.match(message)
    if quoted is not None:
        return quoted[1]
    default = "InvalidParameter" if status < 500 else "InternalServiceError"
    found = _CODES.get(code) or _CODES_OF_STATUS.get(status, default)
    name = (param or "").partition(".")[0]
    return found.format(param=name) if name else found.removesuffix(".{param}")


def vendor_error(error: dict[str, Any], status: int, request_id: str) -> dict[str, Any]:
    """Return the vendor's error body for the `error` of one of ours."""
    param = error.get("param") or ""
    code = vendor_code(str(error.get("code")), status, param, message=str(error.get("message")))
    message = f"{error.get('message')} Request id: {request_id}"
    kind = _TYPES.get(status, "InternalServerError" if status >= 500 else "BadRequest")
    return {"error": {"code": code, "message": message, "param": param, "type": kind}}


class ArkErrors:
    """The middleware. It stands outside of all others, because they answer with errors too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        is_ours = scope["type"] == "http" and _DOUBLE_SLASHES.sub("/", scope["path"]).startswith(PREFIX)
        await self._app(scope, receive, _Rewriter(send).send if is_ours else send)


class _Rewriter:
    """Holds an error answer back until it is complete, and sends it in the vendor's shape."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        """Pass on one message of the answer."""
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._start = message
        elif message["type"] == "http.response.body" and self._start is not None:
            self._body += message.get("body", b"")
            if len(self._body) > _MAX_ERROR_BYTES or not message.get("more_body", False):
                await self._finish(more_body=message.get("more_body", False))
        else:
            await self._send(message)

    async def _finish(self, *, more_body: bool) -> None:
        start, self._start = self._start or {}, None
        status, headers = start["status"], dict(start["headers"])
        try:
            error = json.loads(self._body)["error"]
            body = vendor_error(error, status, headers.get(b"x-request-id", b"").decode("latin-1"))
            # A message may name a value of the request that holds half a character.
            content = json.dumps(body, ensure_ascii=False).encode(errors="replace")
        except (ValueError, TypeError, LookupError):
            content = self._body  # an answer without an error object stays as it is
        else:
            kept = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            code = [(b"x-error-code", body["error"]["code"].encode())] if status == 401 else []
            start["headers"] = [*kept, (b"content-length", str(len(content)).encode()), *code]
        await self._send(start)
        await self._send({"type": "http.response.body", "body": content, "more_body": more_body})
