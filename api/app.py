"""Build the API: middleware, routes, error handlers, lifespan."""

import contextlib
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import anyio.to_thread
import structlog
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.deps import token_hash
from api.errors import error_response, install_error_handlers
from api.hub import Hub
from api.routes import files, images, jobs, models, ops, webhooks
from worker.core.crypto import seal_secret
from worker.core.errors import DreameryError
from worker.core.log import configure_logging, get_logger
from worker.core.settings import Settings, get_settings
from worker.core.tokens import parse_tokens
from worker.db import accounts, people
from worker.db.engine import get_engine, transaction

log = get_logger("api")

# Under `dreamery up` this session always works, with the admin key too while the pool has no real account.
DEMO_TOKEN = "demo:sandbox"  # noqa: S105


class RequestFrame:
    """The outermost layer: request id, size limit, one log line, and the error object for what nobody caught."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id", b""))
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        status, started, received = 0, time.monotonic(), 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        async def receive_capped() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._max_bytes:
                    raise DreameryError("request_too_large", _too_large(self._max_bytes))
            return message

        try:
            length = headers.get(b"content-length", b"0")
            if length.isdigit() and int(length) > self._max_bytes:
                raise DreameryError("request_too_large", _too_large(self._max_bytes))
            await self._app(scope, receive_capped, send_marked)
        except DreameryError as error:
            await error_response(error, headers={"Connection": "close"})(scope, receive, send_marked)
        except Exception:
            log.exception("unhandled_exception", path=scope["path"])
            if status:
                raise
            await error_response(DreameryError("internal_error"))(scope, receive, send_marked)
        finally:
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                seconds=round(time.monotonic() - started, 4),
            )


def _request_id(given: bytes) -> str:
    text = given.decode("latin-1")
    # A caller's own id is kept when it is harmless in a log line.
    return text if 0 < len(text) <= 100 and text.isascii() and text.isprintable() else f"req_{uuid4().hex}"


def _too_large(limit: int) -> str:
    return f"The body is larger than {limit} bytes. Send less."


def _bootstrap(settings: Settings) -> None:
    """The first admin's key, and with a sandbox and no other account, an account for it to use."""
    with transaction() as tx:
        if settings.admin_key.get_secret_value():
            people.ensure_admin(tx, settings.admin_key.get_secret_value())
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
    )
    app.add_middleware(RequestFrame, max_bytes=settings.request_max_bytes)
    install_error_handlers(app)
    for module in (images, jobs, models, files, webhooks, ops):
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
