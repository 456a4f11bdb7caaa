"""The outermost middleware: request id, body limits, headers of the answer, access log, crashes as error objects."""

import asyncio
import contextlib
import re
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import anyio
import anyio.to_thread
import structlog
from fastapi import HTTPException, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.body_parsing import PATHS_WITH_FILES, close_form
from api.http.concurrency_limits import OpenRequests
from api.http.cors_and_compression import budget_warning, limit_headers, open_to_browsers
from api.http.errors import error_response, fault_response, speak
from api.http.request_tracker import Visit
from api.http.security_headers import protective_headers
from worker.core.errors import DreameryError
from worker.core.ids import new_request_id
from worker.core.observability import metrics, tracing
from worker.core.observability.logging import get_logger

log = get_logger("api")

# A client that sends nothing for so long while a body is due is gone.
_STALL_SECONDS = 60.0


# How much of a body that is too large is still read before the connection is closed.
_DRAIN_BYTES = 8_000_000


@dataclass(frozen=True, slots=True)
class _Limits:
    """The largest body, the largest of a path whose bodies may hold pictures, and how long one may take to arrive."""

    usual: int
    with_pictures: int
    seconds: float

    def of(self, path: str) -> int:
        return self.with_pictures if path in PATHS_WITH_FILES else self.usual


class RequestFrame:
    """The outermost layer: request id, limits of the body, marks of the job, one log line, crashes as error objects."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_upload_bytes: int, body_seconds: float) -> None:
        self._app = app
        self._limits = _Limits(max_bytes, max_upload_bytes, body_seconds)
        self._open = OpenRequests()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            state = scope.setdefault("state", {})
            state["open_requests"] = self._open
            self._open.begin()
            try:
                await _Exchange(scope, receive, send, self._limits).run(self._app)
            finally:
                self._open.end(state.get("open_of"))
                await close_form(state)
        else:
            await self._app(scope, receive, send)


class _Exchange:
    """One request and its answer, as they pass the frame."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: _Limits) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._request_id = _request_id(self._headers.get(b"x-request-id", b""))
        self._state: dict[str, Any] = scope["state"]
        # Clients join base URLs and paths with a slash too many. Nothing has a name with a NUL: Postgres takes none.
        scope["path"] = re.sub("/{2,}", "/", scope["path"]).rstrip("/").replace("\0", "\ufffd") or "/"
        self._max_bytes = limits.of(scope["path"])
        self._started = time.monotonic()
        self._body_until = asyncio.get_running_loop().time() + limits.seconds
        self._body_complete = False
        self._received = 0
        self._status = 0
        self._complete = False
        self._language = speak(self._headers.get(b"accept-language", b"").decode("latin-1"))

    async def run(self, app: ASGIApp) -> None:
        """Let the application answer; what it does not catch becomes a 500 with the error object."""
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=self._request_id)
        with self._span() as marks:
            await self._run(app)
            marks.rename(f"{self._scope['method']} {self._route()}")
            marks.set(http__route=self._route(), http__response__status_code=self._status)
            if self._status >= 500:
                marks.fail(str(self._status))

    def _span(self) -> AbstractContextManager[tracing.Marks]:
        """Below the caller's own span, when it names one."""
        parent = self._headers.get(b"traceparent", b"").decode("latin-1") or None
        method = self._scope["method"]
        # The path is left out: those of files are as good as keys.
        return tracing.span(
            method, parent=parent, kind="server", http__request__method=method, request__id=self._request_id
        )

    async def _run(self, app: ASGIApp) -> None:
        try:
            if (refusal := self._refusal()) is not None:
                await self._answer(error_response(refusal, headers={"Connection": "close"}))
            elif self._announced_bytes() > self._max_bytes:
                await self._refuse_body()
            else:
                await app(self._scope, self._receive_capped, self._send_marked)
        except Exception:
            log.exception("unhandled_exception", path=self._scope["path"])
            if self._status:
                raise
            await self._answer(fault_response(self._state, "internal_error"))
        finally:
            self._end_visit()
            self._count()
            log.info(
                "request",
                method=self._scope["method"],
                path=self._scope["path"],
                status=self._status,
                seconds=round(time.monotonic() - self._started, 4),
                **({"job_id": self._state["job_id"]} if "job_id" in self._state else {}),
            )

    def _route(self) -> str:
        """The route's pattern, or every id would be a line of its own."""
        return getattr(self._scope.get("route"), "path", "unknown")

    def _count(self) -> None:
        route = self._route()
        metrics.count("dreamery_requests", self._scope["method"], route, str(self._status))
        metrics.observe("dreamery_request_seconds", time.monotonic() - self._started, route)

    def _end_visit(self) -> None:
        """How a request that made or joined jobs ended: whether its repeat joins them depends on it."""
        visit: Visit | None = self._state.get("visit")
        if visit is None:
            return
        if visit.gone.is_set() or not self._complete or not self._state.get("accepted"):
            # Not accepted may still be committed, when Postgres went away with the answer.
            visit.end("cut")
        else:
            visit.end("timeout" if self._status == 504 or visit.out_of_time else "answered")

    async def _hung_up(self) -> bool:
        """Whether the client has gone, without waiting: what is sent to it then goes nowhere and tells nobody."""
        heard: list[Message] = []
        with anyio.CancelScope() as scope:
            scope.cancel()
            heard.append(await self._receive())
        return any(message["type"] == "http.disconnect" for message in heard)

    def _refusal(self) -> DreameryError | None:
        """Why this request is not even looked at."""
        if b"%00" in self._scope["query_string"]:
            return _nul_in(self._scope["query_string"].decode("latin-1"))
        try:
            self._state["open_requests"].check(self._scope["path"])
        except DreameryError as error:
            return error
        return None

    def _announced_bytes(self) -> int:
        length = self._headers.get(b"content-length", b"")
        return int(length) if length.isdigit() and len(length) < 20 else 0

    async def _refuse_body(self) -> None:
        # Who asked for leave to send (curl does above 1 MB) gets the answer instead; others are heard out a while.
        if b"expect" not in self._headers:
            await self._drain()
        error = DreameryError("request_too_large", _too_large(self._max_bytes))
        await self._answer(error_response(error, headers={"Connection": "close"}))

    async def _drain(self) -> None:
        """Read on for a while: a client that is cut off in the middle of sending may never see the answer."""
        with contextlib.suppress(TimeoutError):
            while not self._body_complete and self._received < self._max_bytes + _DRAIN_BYTES:
                await self._receive_timed()

    async def _receive_timed(self) -> Message:
        """The next message; a body that stalls, or drips for too long, raises TimeoutError."""
        if self._body_complete:
            return await self._receive()
        stalled_at = asyncio.get_running_loop().time() + _STALL_SECONDS
        async with asyncio.timeout_at(min(self._body_until, stalled_at)):
            message = await self._receive()
        self._received += len(message.get("body", b""))
        self._body_complete = not message.get("more_body", False)
        return message

    async def _receive_capped(self) -> Message:
        # HTTPException alone passes through the framework's reading of the body.
        try:
            message = await self._receive_timed()
        except TimeoutError:
            raise HTTPException(408, headers={"Connection": "close"}) from None
        if message["type"] == "http.request" and self._received > self._max_bytes:
            await self._drain()
            raise HTTPException(413, _too_large(self._max_bytes), headers={"Connection": "close"})
        return message

    async def _send_marked(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message["headers"] = [*message.get("headers", []), *self._marks([*message.get("headers", [])])]
        elif not message.get("more_body", False):
            if "visit" in self._state and await self._hung_up():
                self._state["visit"].gone.set()
            self._complete = True
        await self._send(message)

    def _marks(self, sent: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        milliseconds = round((time.monotonic() - self._started) * 1000)
        marks = [
            (b"x-request-id", self._request_id.encode()),
            (b"openai-processing-ms", str(milliseconds).encode()),
            *protective_headers(sent),
        ]
        if "standing" in self._state:
            marks += limit_headers(self._state["standing"])
        if "budget_warnings" in self._state:
            marks.append((b"x-budget-warning", budget_warning(self._state["budget_warnings"])))
        if "job_id" in self._state:
            marks.append((b"x-job-id", self._state["job_id"].encode()))
        if self._language.mattered:
            marks.append((b"vary", b"Accept-Language"))
        if self._status >= 400 and self._state.get("accepted"):
            # SDKs repeat 408, 409, 429 and 5xx by themselves, and a repeat of an accepted job would be paid again,
            # unless it is sure to join it.
            marks.append((b"x-should-retry", b"true" if self._state.get("repeat_joins") else b"false"))
        elif self._status in {429, 503} and not any(name.lower() == b"retry-after" for name, _ in sent):
            # Before acceptance a repeat is right, but not at once.
            marks.append((b"retry-after", b"5"))
        return marks

    async def _answer(self, response: Response) -> None:
        await open_to_browsers(response)(self._scope, self._receive, self._send_marked)


def _request_id(given: bytes) -> str:
    text = given.decode("latin-1")
    # A caller's own id is kept when it is harmless in a log line.
    return text if 0 < len(text) <= 100 and text.isascii() and text.isprintable() else new_request_id()


def _nul_in(query: str) -> DreameryError:
    named = (name for name, value in parse_qsl(query) if "\0" in value and "\0" not in name)
    return DreameryError("invalid_value", "The URL must not hold a NUL character (`%00`).", param=next(named, None))


def _too_large(limit: int) -> str:
    return f"The body is larger than {limit} bytes. Send less."
