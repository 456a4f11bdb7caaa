"""Build the API: middleware, routes, error handlers, lifespan."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import anyio
import anyio.to_thread
from fastapi import FastAPI

from api.accounts import admin_routes as accounts_admin_routes
from api.accounts import own_routes, session_check_routes
from api.admin import audit_export_routes, job_routes, own_key_routes
from api.admin import routes as admin_routes
from api.auth.failed_login_limits import FailedKeys
from api.auth.session_tokens import presented, token_hash
from api.chat import routes as chat_routes
from api.console import routes as console_routes
from api.estimates import routes as estimates_routes
from api.generation import job_action_routes, model_routes
from api.http.cors_and_compression import CompressedReads, open_to_browsers
from api.http.errors import install_error_handlers
from api.http.graceful_shutdown import hearing_stop
from api.http.openapi import describe
from api.http.request_middleware import RequestFrame
from api.http.request_tracker import Attendance
from api.images import routes as images_routes
from api.jobs import archive_routes, favourite_routes, file_routes, pin_routes
from api.jobs import routes as jobs_routes
from api.jobs.feed import JobFeeds
from api.jobs.watcher import Hub
from api.operations import drain_routes, health_routes, system_routes
from api.usage import credit_routes
from api.usage import routes as usage_routes
from api.videos import generation_routes
from api.videos import routes as videos_routes
from api.webhooks import delivery_routes, endpoint_routes
from worker.core.observability import tracing
from worker.core.observability.logging import configure_logging, get_logger
from worker.core.security import production_checks
from worker.core.security.session_tokens import parse_tokens
from worker.core.settings import Settings, get_settings
from worker.db.accounts import accounts, management
from worker.db.engine import get_engine, retry_when_database_away, transaction
from worker.db.platform import root_key
from worker.db.users import api_keys, users
from worker.messaging import metrics_store as carried
from worker.messaging.rate_limits import RequestLimits

log = get_logger("api")

# Static words of paths stand before `{id}`.
ROUTES = (
    chat_routes,
    images_routes,
    generation_routes,
    videos_routes,
    favourite_routes,
    jobs_routes,
    job_action_routes,
    pin_routes,
    estimates_routes,
    model_routes,
    own_routes,
    own_key_routes,
    archive_routes,
    file_routes,
    session_check_routes,
    endpoint_routes,
    delivery_routes,
    admin_routes,
    accounts_admin_routes,
    console_routes,
    credit_routes,
    drain_routes,
    system_routes,
    job_routes,
    audit_export_routes,
    usage_routes,
    health_routes,
)

# Under `dreamery up` this session always works, with the admin key too while the pool has no real account.
DEMO_TOKEN = "demo:sandbox"  # noqa: S105


@retry_when_database_away
def _bootstrap(settings: Settings) -> None:
    """The first admin's key, and with a sandbox and no other account, an account for it to use."""
    root_key.load_root()
    with transaction() as tx:
        if settings.admin_key.get_secret_value():
            api_keys.ensure_bootstrap_key(tx, users.ensure_admin(tx), settings.admin_key.get_secret_value())
        if settings.sandbox_url and settings.env != "production" and management.pool_is_empty(tx):
            (token,) = parse_tokens(DEMO_TOKEN, "sandbox")
            accounts.add_account(tx, replace(presented(token_hash(token), token), label="sandbox demo"), pool=True)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings = get_settings()
    # More threads than connections would only queue inside the pool.
    anyio.to_thread.current_default_thread_limiter().total_tokens = settings.db_pool_size
    await anyio.to_thread.run_sync(_bootstrap, settings)
    app.state.hub = Hub()
    app.state.hub.start()
    app.state.feeds = JobFeeds(app.state.hub)
    app.state.feeds.start()
    flusher = carried.start()
    app.state.limits = RequestLimits()
    app.state.failed_keys = FailedKeys(app.state.limits)
    app.state.attendance = Attendance()
    await app.state.attendance.start()
    with hearing_stop(app.state.hub.let_go):
        yield
    await app.state.attendance.stop()
    await app.state.feeds.stop()
    await app.state.hub.stop()
    await app.state.limits.close()
    await anyio.to_thread.run_sync(flusher.stop)
    await anyio.to_thread.run_sync(tracing.stop)
    get_engine().dispose()


def create_app() -> FastAPI:
    """The ASGI application (`uvicorn --factory api.app:create_app`)."""
    settings = get_settings()
    if found := production_checks.refusals(settings):
        raise SystemExit("\n".join(found))
    configure_logging(settings)
    for warning in production_checks.warnings(settings):
        log.warning("insecure_setting", what=warning)
    tracing.configure("dreamery-api")
    app = FastAPI(
        title="Dreamery",
        version="0.1.0",
        lifespan=_lifespan,
        redirect_slashes=False,
        docs_url=None,  # `describe` serves a page that needs no internet
        redoc_url=None,
        strict_content_type=False,  # a body without Content-Type is tried as JSON; a cookie alone changes nothing here
    )
    # From the inside out.
    app.add_middleware(CompressedReads)
    app.add_middleware(open_to_browsers)
    app.add_middleware(
        RequestFrame,
        max_bytes=settings.request_max_bytes,
        max_upload_bytes=settings.request_max_upload_bytes,
        body_seconds=settings.request_body_seconds,
    )
    install_error_handlers(app)
    for module in ROUTES:
        app.include_router(module.router)
    app.webhooks.include_router(endpoint_routes.received)
    describe(app)
    return app
