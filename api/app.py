"""Build the API application: middleware, routes, error handlers, lifespan."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from importlib.metadata import version

import anyio
import anyio.to_thread
from fastapi import FastAPI

from api.accounts import admin_routes as account_admin_routes
from api.accounts import own_routes as own_account_routes
from api.accounts import session_check_routes
from api.admin import audit_export_routes, own_key_routes
from api.admin import job_routes as admin_job_routes
from api.admin import routes as admin_routes
from api.admin import sign_in_routes as admin_sign_in_routes
from api.auth.caller_checks import CallerChecks
from api.auth.failed_login_limits import FailedLoginLimiter
from api.auth.session_tokens import encrypt_session_token, session_token_hash
from api.batches import batch_routes
from api.batches import file_routes as batch_file_routes
from api.batches.runner import BatchRunner
from api.chat import routes as chat_routes
from api.chat.background import detection as background_detection
from api.chat.conversations import routes as conversation_routes
from api.console import access_routes, oidc_routes, sign_in_routes
from api.console import routes as console_routes
from api.generation import job_action_routes
from api.generation.models import routes as model_routes
from api.http.cors_and_compression import CompressionMiddleware, add_cors
from api.http.docs.openapi import install_openapi
from api.http.errors import install_error_handlers
from api.http.graceful_shutdown import on_shutdown_signal
from api.http.request_middleware import RequestMiddleware
from api.http.request_tracker import RequestTracker
from api.images import routes as image_routes
from api.jobs import archive_routes, callback_routes, file_routes, input_routes
from api.jobs import routes as job_routes
from api.jobs.feed import JobFeeds
from api.jobs.results import action_routes as result_action_routes
from api.jobs.results import favourite_routes, pin_routes
from api.jobs.results import list_routes as result_routes
from api.jobs.sharing import album_file_routes, album_member_routes, album_routes, share_routes
from api.jobs.sharing import page_routes as share_page_routes
from api.jobs.timeline import waiting_routes
from api.jobs.watcher import JobWatcher
from api.jobs.webhooks import delivery_routes as webhook_delivery_routes
from api.jobs.webhooks import endpoint_routes as webhook_endpoint_routes
from api.operations import drain_routes, health_routes, notice_routes, system_routes
from api.operations.monitoring import alert_routes, channel_routes, history_routes
from api.protocols.ark import image_routes as ark_image_routes
from api.protocols.ark import task_routes as ark_task_routes
from api.protocols.ark.errors import ArkErrors
from api.protocols.mcp import routes as mcp_routes
from api.usage import credit_routes
from api.usage import routes as usage_routes
from api.usage.estimates import routes as estimate_routes
from api.videos import generation_routes as video_generation_routes
from api.videos import routes as video_routes
from worker.core import gc_tuning
from worker.core.catalog.provider_data import first_provider
from worker.core.observability import tracing
from worker.core.observability.logging import configure_logging, get_logger
from worker.core.security import production_checks
from worker.core.security.session_tokens import SANDBOX, demo_tokens, parse_tokens
from worker.core.settings import Settings, get_settings
from worker.db.accounts import accounts, management
from worker.db.accounts.accounts import DEMO_LABEL
from worker.db.engine import get_engine, retry_when_database_unavailable, transaction
from worker.db.platform import root_key
from worker.db.users import api_keys, users
from worker.messaging import metrics_store
from worker.messaging.rate_limits import RequestLimits

log = get_logger("api")

# Order matters: a path with a fixed segment must come before one with `{id}` in its place.
ROUTES = (
    archive_routes,
    batch_routes,
    batch_file_routes,
    chat_routes,
    conversation_routes,
    image_routes,
    video_generation_routes,
    video_routes,
    ark_image_routes,
    ark_task_routes,
    favourite_routes,
    job_routes,
    job_action_routes,
    pin_routes,
    waiting_routes,
    estimate_routes,
    model_routes,
    own_account_routes,
    own_key_routes,
    input_routes,
    file_routes,
    result_routes,
    result_action_routes,
    album_file_routes,
    album_member_routes,
    album_routes,
    share_routes,
    share_page_routes,
    session_check_routes,
    webhook_endpoint_routes,
    webhook_delivery_routes,
    callback_routes,
    admin_routes,
    admin_sign_in_routes,
    account_admin_routes,
    sign_in_routes,
    access_routes,
    oidc_routes,
    console_routes,
    credit_routes,
    drain_routes,
    notice_routes,
    system_routes,
    history_routes,
    channel_routes,
    alert_routes,
    admin_job_routes,
    audit_export_routes,
    usage_routes,
    health_routes,
    mcp_routes,
)


@retry_when_database_unavailable
def _bootstrap(settings: Settings) -> None:
    """Create the first admin and its API key; with a sandbox and an empty pool, also accounts of the sandbox.

    So `dreamery up` works without a real account.
    """
    root_key.load_root_key()
    with transaction() as tx:
        if settings.admin_key.get_secret_value():
            api_keys.ensure_bootstrap_key(tx, users.ensure_admin(tx), settings.admin_key.get_secret_value())
        if settings.sandbox_url and settings.env != "production" and management.pool_is_empty(tx):
            for token in parse_tokens(",".join(demo_tokens()), SANDBOX):
                account = encrypt_session_token(session_token_hash(token), token)
                label = DEMO_LABEL if token.provider == first_provider() else f"{DEMO_LABEL} {token.provider}"
                accounts.add_account(tx, replace(account, label=label), pool=True)


def _release(app: FastAPI) -> None:
    """End waits and streams, because this process stops."""
    app.state.job_watcher.release_waiters()
    app.state.feeds.release()


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings = get_settings()
    # More threads than database connections would only wait for the pool.
    anyio.to_thread.current_default_thread_limiter().total_tokens = settings.db_pool_size
    await anyio.to_thread.run_sync(_bootstrap, settings)
    await anyio.to_thread.run_sync(background_detection.prepare)
    app.state.job_watcher = JobWatcher()
    app.state.job_watcher.start()
    app.state.caller_checks = CallerChecks()
    app.state.caller_checks.start()
    app.state.job_watcher.on_permissions_change = app.state.caller_checks.check_soon
    app.state.feeds = JobFeeds(app.state.job_watcher)
    app.state.feeds.start()
    flusher = metrics_store.start()
    app.state.limits = RequestLimits()
    app.state.failed_logins = FailedLoginLimiter(app.state.limits)
    app.state.request_tracker = RequestTracker()
    await app.state.request_tracker.start()
    app.state.batch_runner = BatchRunner()
    app.state.batch_runner.start()
    gc_tuning.keep_imports()
    with on_shutdown_signal(partial(_release, app)):
        yield
    await mcp_routes.stop_mcp(app)
    await app.state.batch_runner.stop()
    await app.state.request_tracker.stop()
    await app.state.feeds.stop()
    await app.state.job_watcher.stop()
    await app.state.caller_checks.stop()
    await app.state.limits.close()
    await anyio.to_thread.run_sync(flusher.stop)
    await anyio.to_thread.run_sync(tracing.stop)
    get_engine().dispose()


def create_app() -> FastAPI:
    """The ASGI application (`uvicorn --factory api.app:create_app`)."""
    settings = get_settings()
    if errors := production_checks.find_problems(settings):
        raise SystemExit("\n".join(errors))
    configure_logging(settings)
    for warning in production_checks.find_warnings(settings):
        log.warning("insecure_setting", what=warning)
    tracing.configure("dreamery-api")
    app = FastAPI(
        title="Dreamery",
        version=version("dreamery"),
        lifespan=_lifespan,
        redirect_slashes=False,
        openapi_url=None,  # `install_openapi` serves the document, and a page that works offline
        docs_url=None,
        redoc_url=None,
        strict_content_type=False,  # a body without Content-Type is parsed as JSON; the CSRF check does not rely on it
    )
    # The middleware added last is the outermost.
    app.add_middleware(CompressionMiddleware)
    app.add_middleware(add_cors)
    app.add_middleware(
        RequestMiddleware,
        max_bytes=settings.request_max_bytes,
        max_upload_bytes=settings.request_max_upload_bytes,
        body_seconds=settings.request_body_timeout_seconds,
    )
    app.add_middleware(ArkErrors)
    install_error_handlers(app)
    for module in ROUTES:
        app.include_router(module.router)
    app.webhooks.include_router(webhook_endpoint_routes.documented_events)
    install_openapi(app)
    return app
