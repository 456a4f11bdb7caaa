"""Build the API: middleware, routes, error handlers, lifespan."""

import contextlib
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import anyio.to_thread
import structlog
from fastapi import FastAPI, HTTPException, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.deps import token_hash
from api.errors import error_response, fault_response, install_error_handlers, speak
from api.forms import PATHS_WITH_FILES
from api.hub import Hub
from api.routes import admin, files, images, jobs, models, ops, webhooks
from worker.core.crypto import seal_secret
from worker.core.errors import DreameryError
from worker.core.log import configure_logging, get_logger
from worker.core.settings import Settings, get_settings
from worker.core.tokens import parse_tokens
from worker.db import accounts, keys, people
from worker.db.engine import get_engine, retry_when_database_away, transaction

log = get_logger("api")

# Under `dreamery up` this session always works, with the admin key too while the pool has no real account.
DEMO_TOKEN = "demo:sandbox"  # noqa: S105

# How much of a body that is too large is still read before the connection is closed.
_DRAIN_BYTES = 8_000_000


@dataclass(frozen=True, slots=True)
class _Limits:
    """The largest body, and the largest of a path whose bodies may hold pictures."""

    usual: int
    with_pictures: int

    def of(self, path: str) -> int:
        return self.with_pictures if path in PATHS_WITH_FILES else self.usual


class RequestFrame:
    """The outermost layer: request id, size limit, marks of the job, one log line, the error object for every crash."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_upload_bytes: int) -> None:
        self._app = app
        self._limits = _Limits(max_bytes, max_upload_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            await _Exchange(scope, receive, send, self._limits).run(self._app)
        else:
            await self._app(scope, receive, send)


class _Exchange:
    """One request and its answer, as they pass the frame."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: _Limits) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._request_id = _request_id(self._headers.get(b"x-request-id", b""))
        self._state: dict[str, Any] = scope.setdefault("state", {})
        # Clients join base URLs and paths with a slash too many.
        scope["path"] = re.sub("/{2,}", "/", scope["path"]).rstrip("/") or "/"
        self._max_bytes = limits.of(scope["path"])
        self._received = 0
        self._status = 0
        self._language = speak(self._headers.get(b"accept-language", b"").decode("latin-1"))

    async def run(self, app: ASGIApp) -> None:
        """Let the application answer; what it does not catch becomes a 500 with the error object."""
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=self._request_id)
        started = time.monotonic()
        try:
            if self._announced_bytes() > self._max_bytes:
                await self._refuse_body()
            else:
                await app(self._scope, self._receive_capped, self._send_marked)
        except Exception:
            log.exception("unhandled_exception", path=self._scope["path"])
            if self._status:
                raise
            await self._answer(fault_response(self._state, "internal_error"))
        finally:
            log.info(
                "request",
                method=self._scope["method"],
                path=self._scope["path"],
                status=self._status,
                seconds=round(time.monotonic() - started, 4),
            )

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
        more = True
        while more and self._received < self._max_bytes + _DRAIN_BYTES:
            message = await self._receive()
            self._received += len(message.get("body", b""))
            more = message.get("more_body", False)

    async def _receive_capped(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            if self._received > self._max_bytes:
                if message.get("more_body", False):
                    await self._drain()
                # This class alone passes through the framework's reading of the body.
                raise HTTPException(413, _too_large(self._max_bytes), headers={"Connection": "close"})
        return message

    async def _send_marked(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message["headers"] = [*message.get("headers", []), *self._marks()]
        await self._send(message)

    def _marks(self) -> list[tuple[bytes, bytes]]:
        marks = [(b"x-request-id", self._request_id.encode())]
        if "job_id" in self._state:
            marks.append((b"x-job-id", self._state["job_id"].encode()))
        if self._language.mattered:
            marks.append((b"vary", b"Accept-Language"))
        if self._status >= 400 and self._state.get("accepted"):
            # SDKs repeat 408, 409, 429 and 5xx by themselves, and a repeat of an accepted job would be paid again.
            marks.append((b"x-should-retry", b"false"))
        return marks

    async def _answer(self, response: Response) -> None:
        await response(self._scope, self._receive, self._send_marked)


def _request_id(given: bytes) -> str:
    text = given.decode("latin-1")
    # A caller's own id is kept when it is harmless in a log line.
    return text if 0 < len(text) <= 100 and text.isascii() and text.isprintable() else f"req_{uuid4().hex}"


def _too_large(limit: int) -> str:
    return f"The body is larger than {limit} bytes. Send less."


@retry_when_database_away
def _bootstrap(settings: Settings) -> None:
    """The first admin's key, and with a sandbox and no other account, an account for it to use."""
    with transaction() as tx:
        if settings.admin_key.get_secret_value():
            keys.ensure_bootstrap_key(tx, people.ensure_admin(tx), settings.admin_key.get_secret_value())
        if settings.sandbox_url and accounts.pool_is_empty(tx):
            (token,) = parse_tokens(DEMO_TOKEN, "sandbox")
            digest = token_hash(token)
            secret = seal_secret(token.session, context=accounts.secret_context(digest))
            accounts.add_account(
                tx,
                accounts.PresentedToken(lookup_hash=digest, region="sandbox", label="sandbox demo", secret=secret),
                pool=True,
            )


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings = get_settings()
    # More threads than connections would only queue inside the pool.
    anyio.to_thread.current_default_thread_limiter().total_tokens = settings.db_pool_size
    await anyio.to_thread.run_sync(_bootstrap, settings)
    app.state.hub = Hub()
    app.state.hub.start()
    yield
    await app.state.hub.stop()
    get_engine().dispose()


def create_app() -> FastAPI:
    """The ASGI application (`uvicorn --factory api.app:create_app`)."""
    settings = get_settings()
    _refuse_weak_secrets(settings)
    configure_logging(settings)
    app = FastAPI(
        title="Dreamery",
        description="OpenAI-compatible generation on your own Dreamina and Jimeng accounts.",
        version="0.1.0",
        lifespan=_lifespan,
        redirect_slashes=False,
        strict_content_type=False,  # a body without Content-Type is tried as JSON; no cookie lets a browser in here
    )
    app.add_middleware(
        RequestFrame, max_bytes=settings.request_max_bytes, max_upload_bytes=settings.request_max_upload_bytes
    )
    install_error_handlers(app)
    for module in (images, jobs, models, files, webhooks, admin, ops):
        app.include_router(module.router)
    return app


def _refuse_weak_secrets(settings: Settings) -> None:
    if not settings.master_key.get_secret_value():
        raise SystemExit(
            "DREAMERY_MASTER_KEY is not set. Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    if settings.env == "production":
        for name in ("master_key", "admin_key"):
            if len(getattr(settings, name).get_secret_value()) < 32:
                raise SystemExit(f"DREAMERY_{name.upper()} must have at least 32 characters in production.")
