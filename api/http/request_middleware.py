"""The outermost middleware: request id, body limits, response headers, access log, crashes as error objects."""

import asyncio
import re
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import anyio
import anyio.to_thread
import structlog
from fastapi import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.bodies import compression
from api.http.bodies.reading import BodyReader, too_large
from api.http.bodies.received import BodyShares, release_body
from api.http.body_parsing import PATHS_WITH_UPLOADS
from api.http.clients.address import forwarded_scheme
from api.http.clients.concurrency_limits import OpenRequests
from api.http.clients.interruption import Interruption
from api.http.clients.logged_paths import logged_path
from api.http.cors_and_compression import add_cors, format_budget_warning, rate_limit_headers
from api.http.errors import error_body, error_response, select_language, server_fault_response
from api.http.request_tracker import TrackedRequest
from api.http.security_headers import security_headers
from api.http.sse import sse
from worker.core.errors import DreameryError
from worker.core.ids import new_request_id
from worker.core.observability import metrics, tracing
from worker.core.observability.logging import get_logger
from worker.core.security.callback_tokens import CALLBACK_PATH

log = get_logger("api")

# Calls of a deployment; those that are not offered get their hint.
# More than the report of an upstream has.
_REPORT_BYTES = 65_536
_AZURE_CALLS = ("chat", "images", "videos?", "completions", "responses", "embeddings", "audio", "moderations")
# Each ends with anything (DOTALL): a line end after many calls would otherwise be looked for from each of them.
# Azure's paths -> ours: its v1 API, the older one that names the model in the path, and the lists of models.
_AZURE_PATHS = (
    (re.compile(r"/openai/v1/(?P<rest>.+)"), "/v1/{rest}"),
    (
        re.compile(rf"/openai/deployments/(?P<model>.+?)/(?P<rest>(?:{'|'.join(_AZURE_CALLS)})(?:/.+)?)", re.DOTALL),
        "/v1/{rest}",
    ),
    (re.compile(r"/openai/(?:models|deployments)(?P<rest>(?:/.+)?)"), "/v1/models{rest}"),
)


@dataclass(frozen=True, slots=True)
class _BodyLimits:
    """Largest body in bytes, the limit for paths that accept uploads, and the seconds a body may take to arrive."""

    default_bytes: int
    upload_bytes: int
    seconds: float

    def max_bytes(self, path: str) -> int:
        if path.startswith(CALLBACK_PATH):
            return _REPORT_BYTES  # anybody may send one
        return self.upload_bytes if path in PATHS_WITH_UPLOADS else self.default_bytes


class RequestMiddleware:
    """Outermost middleware: request id, body limits, job headers, one log line, crashes as error objects."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_upload_bytes: int, body_seconds: float) -> None:
        self._app = app
        self._limits = _BodyLimits(max_bytes, max_upload_bytes, body_seconds)
        self._open = OpenRequests()
        self._body_shares = BodyShares()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            state = scope.setdefault("state", {})
            state["open_requests"] = self._open
            state["body_shares"] = self._body_shares
            scope["scheme"] = forwarded_scheme(scope)
            self._open.begin()
            try:
                await _RequestHandler(scope, receive, send, self._limits).run(self._app)
            finally:
                self._open.end(state.get("open_requests_caller"))
                release_body(state)
        else:
            await self._app(scope, receive, send)


class _RequestHandler:
    """Handles one request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: _BodyLimits) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._request_id = _request_id(self._headers.get(b"x-request-id", b""))
        self._state: dict[str, Any] = scope["state"]
        self._state["request_id"] = self._request_id
        # Clients may join base URL and path with two slashes. No name contains NUL, because Postgres rejects it.
        scope["path"] = re.sub("/{2,}", "/", scope["path"]).rstrip("/").replace("\0", "\ufffd") or "/"
        if scope["path"].startswith("/openai/"):
            self._translate_azure_path()
        self._max_bytes = limits.max_bytes(scope["path"])
        self._started = time.monotonic()
        is_whole = scope["path"] not in PATHS_WITH_UPLOADS
        self._body = BodyReader(scope, receive, max_bytes=self._max_bytes, seconds=limits.seconds, is_whole=is_whole)
        self._status = 0
        self._complete = False
        self._streams_events = False
        self._language = select_language(self._headers.get(b"accept-language", b"").decode("latin-1"))

    def _translate_azure_path(self) -> None:
        """Serve Azure's paths too. Its `api-version` is ignored, and a deployment is a model's name."""
        for pattern, target in _AZURE_PATHS:
            if match := pattern.fullmatch(self._scope["path"]):
                self._scope["path"] = target.format(rest=match["rest"])
                self._state.update({"deployment": match["model"]} if "model" in match.groupdict() else {})
                return

    async def run(self, app: ASGIApp) -> None:
        """Run the application; an uncaught exception becomes a 500 with the error object."""
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=self._request_id)
        with self._span() as span:
            await self._run(app)
            span.rename(f"{self._scope['method']} {self._route()}")
            span.set(http__route=self._route(), http__response__status_code=self._status)
            if self._status >= 500:
                span.fail(str(self._status))

    def _span(self) -> AbstractContextManager[tracing.SpanHandle]:
        """Child of the caller's span, when the request names one."""
        parent = self._headers.get(b"traceparent", b"").decode("latin-1") or None
        method = self._scope["method"]
        # The path is left out, because the path of a file grants access to it.
        return tracing.span(
            method, parent=parent, kind="server", http__request__method=method, request__id=self._request_id
        )

    async def _run(self, app: ASGIApp) -> None:
        try:
            if (error := self._rejection()) is not None:
                await self._respond(error_response(error, headers={"Connection": "close"}))
            elif self._content_length() > self._max_bytes:
                await self._reject_body()
            else:
                with Interruption(self._waits_or_streams) as self._state["interruption"]:
                    await app(self._scope, self._body.receive, self._send_with_headers)
                await self._end_if_interrupted(self._state["interruption"].error)
        except asyncio.CancelledError:
            # uvicorn cancels what is still open at the end of its patience, and would log each with its frames.
            if not self._process_stops():
                raise
            await self._end_with_process()
        except Exception:
            log.exception("unhandled_exception", path=logged_path(self._scope["path"]))
            if self._status:
                raise
            await self._respond(server_fault_response(self._state, "internal_error"))
        finally:
            self._end_tracking()
            self._count()
            log.info(
                "request",
                method=self._scope["method"],
                path=logged_path(self._scope["path"]),
                status=self._status,
                seconds=round(time.monotonic() - self._started, 4),
                **({"job_id": self._state["job_id"]} if "job_id" in self._state else {}),
            )

    def _process_stops(self) -> bool:
        watcher = getattr(self._scope["app"].state, "job_watcher", None)
        return watcher is not None and watcher.stopping

    async def _end_with_process(self) -> None:
        """Answer a request that is cancelled because this process ends. A response that has begun ends incomplete."""
        if (task := asyncio.current_task()) is not None:
            task.uncancel()
        log.info("request_cut", path=logged_path(self._scope["path"]))
        if not self._status:
            error = DreameryError("restarting", "This server restarts. Send the request again.", retry_after=1)
            await self._respond(error_response(error, headers={"Connection": "close"}))

    def _waits_or_streams(self) -> bool:
        return bool(self._status or self._state.get("accepted") or self._scope["method"] in {"GET", "HEAD"})

    async def _end_if_interrupted(self, error: DreameryError | None) -> None:
        """Tell the client why its request ends. A file that is cut off ends with its connection, never as complete."""
        if error is None or self._complete:
            return
        if not self._status:
            await self._respond(error_response(error))
        elif self._streams_events:
            frame = sse("error", {"type": "error", **error_body(error.kind, error.message)})
            await self._send_with_headers({"type": "http.response.body", "body": frame, "more_body": False})

    def _route(self) -> str:
        """The route's pattern: a path with ids would create a time series for each id."""
        return getattr(self._scope.get("route"), "path", "unknown")

    def _count(self) -> None:
        route = self._route()
        metrics.count("dreamery_requests", self._scope["method"], route, str(self._status))
        metrics.observe("dreamery_request_seconds", time.monotonic() - self._started, route)

    def _end_tracking(self) -> None:
        """Record how a request with jobs ended, which decides whether its repeat joins them."""
        tracked: TrackedRequest | None = self._state.get("tracked_request")
        if tracked is None or self._state.get("is_part"):
            return  # its end is recorded with the longer request that it is a part of
        if tracked.disconnected.is_set() or not self._complete or not self._state.get("accepted"):
            # The jobs may be committed without `accepted`: the connection to Postgres broke during the commit.
            tracked.end("cut")
        else:
            tracked.end("timeout" if self._status == 504 or tracked.deadline_passed else "answered")

    async def _client_disconnected(self) -> bool:
        """Whether the client has disconnected, without waiting. Sending to it raises no error, so this checks it."""
        messages: list[Message] = []
        with anyio.CancelScope() as scope:
            scope.cancel()
            messages.append(await self._receive())
        return any(message["type"] == "http.disconnect" for message in messages)

    def _rejection(self) -> DreameryError | None:
        """The error that rejects this request before the application sees it; None when it may pass."""
        if b"%00" in self._scope["query_string"]:
            return _nul_error(self._scope["query_string"].decode("latin-1"))
        if not _is_host(self._headers.get(b"host", b"").decode("latin-1")):
            return DreameryError("invalid_http", "The header `Host` is not a host name.")
        try:
            self._state["open_requests"].check(self._scope["path"])
            encoding = compression.encoding_of(self._headers.get(b"content-encoding", b"").decode("latin-1"))
        except DreameryError as error:
            return error
        except ValueError as error:
            names = ", ".join(compression.SUPPORTED)
            message = f"Content-Encoding {str(error)[:40]!r} is not supported. Supported are {names}."
            return DreameryError("unsupported_media_type", message, headers={"Accept-Encoding": names})
        if encoding:
            self._body.decompress(encoding)
        return None

    def _content_length(self) -> int:
        length = self._headers.get(b"content-length", b"")
        return int(length) if length.isdigit() and len(length) < 20 else 0

    async def _reject_body(self) -> None:
        # A client that sent `Expect` (curl does above 1 MB) has not sent its body; from others we read a part of it.
        if b"expect" not in self._headers:
            await self._body.drain()
        await self._respond(error_response(too_large(self._max_bytes)))

    async def _send_with_headers(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._streams_events = (b"content-type", b"text/event-stream") in {
                (name.lower(), value.partition(b";")[0]) for name, value in message.get("headers", [])
            }
            message["headers"] = [*message.get("headers", []), *self._extra_headers([*message.get("headers", [])])]
        elif not message.get("more_body", False):
            if "tracked_request" in self._state and await self._client_disconnected():
                self._state["tracked_request"].disconnected.set()
            self._complete = True
        await self._send(message)

    def _extra_headers(self, sent: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        milliseconds = round((time.monotonic() - self._started) * 1000)
        extra = [
            (b"x-request-id", self._request_id.encode()),
            (b"openai-processing-ms", str(milliseconds).encode()),
            *security_headers(sent),
        ]
        if "rate_limit_status" in self._state:
            extra += rate_limit_headers(self._state["rate_limit_status"])
        if "budget_warnings" in self._state:
            extra.append((b"x-budget-warning", format_budget_warning(self._state["budget_warnings"])))
        if "job_id" in self._state:
            extra.append((b"x-job-id", self._state["job_id"].encode()))
        if "conversation_id" in self._state:
            extra.append((b"x-conversation-id", self._state["conversation_id"].encode()))
        if self._language.used:
            extra.append((b"vary", b"Accept-Language"))
        if self._status >= 400 and self._state.get("accepted"):
            # SDKs retry 408, 409, 429 and 5xx by themselves. A retry would pay for the job again unless it is certain
            # to join it.
            extra.append((b"x-should-retry", b"true" if self._state.get("repeat_joins") else b"false"))
        elif self._status in {429, 503} and not any(name.lower() == b"retry-after" for name, _ in sent):
            # Before acceptance a retry is correct, but not at once.
            extra.append((b"retry-after", b"5"))
        return extra

    async def _respond(self, response: Response) -> None:
        await add_cors(response)(self._scope, self._receive, self._send_with_headers)


def _request_id(header: bytes) -> str:
    text = header.decode("latin-1")
    # The caller's own id is kept when it is safe in a log line.
    return text if 0 < len(text) <= 100 and text.isascii() and text.isprintable() else new_request_id()


def _nul_error(query: str) -> DreameryError:
    names = (name for name, value in parse_qsl(query) if "\0" in value and "\0" not in name)
    return DreameryError("invalid_value", "The URL must not contain a NUL character (`%00`).", param=next(names, None))


def _is_host(host: str) -> bool:
    """Whether links can be built with this value of `Host`. Without the header the server's own name is used."""
    try:
        urlsplit(f"//{host}")
    except ValueError:
        return False
    return True
