"""CORS, gzip compression, and response headers about rate limits and budgets."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from worker.db.users.quotas import QuotaUsage
from worker.messaging.rate_limits import RateLimitStatus

# Response headers that scripts of other origins may read (openai-compat section 2).
_EXPOSED_HEADERS = (
    "content-disposition",
    "content-range",
    "etag",
    "idempotency-replayed",
    "location",
    "openai-poll-after-ms",
    "openai-processing-ms",
    "preference-applied",
    "retry-after",
    "x-budget-limit",
    "x-budget-reset",
    "x-cooldown-reset",
    "x-budget-warning",
    "x-conversation-id",
    "x-job-id",
    "x-partial-results",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-request-id",
    "x-should-retry",
)
_MIN_COMPRESSED_BYTES = 1000
_GZIP_LEVEL = 5


def add_cors(app: ASGIApp) -> ASGIApp:
    """Wrap the app so that every origin may call it. Without credentials: a page must send a key, never the cookie.

    Requested headers are reflected, because `*` does not cover Authorization. Hosted front ends may call a Dreamery
    on the user's own machine (private network access).
    """
    return CORSMiddleware(
        app,
        allow_origins=["*"],
        allow_methods=["*"],
        allow_headers=["*"],
        allow_private_network=True,
        expose_headers=_EXPOSED_HEADERS,
        max_age=86400,
    )


class CompressionMiddleware:
    """Gzip responses of GET requests (lists, models, documents), except streams and images (by content type).

    Responses of POST requests stay uncompressed: they are small, or base64 of images that are already compressed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._plain = app
        self._compressed = GZipMiddleware(app, minimum_size=_MIN_COMPRESSED_BYTES, compresslevel=_GZIP_LEVEL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        reads = scope["type"] == "http" and scope["method"] == "GET"
        await (self._compressed if reads else self._plain)(scope, receive, send)


def rate_limit_headers(status: RateLimitStatus) -> list[tuple[bytes, bytes]]:
    """OpenAI's three rate-limit headers; the reset is a Go duration."""
    return [
        (b"x-ratelimit-limit-requests", str(status.limit).encode()),
        (b"x-ratelimit-remaining-requests", str(status.remaining).encode()),
        (b"x-ratelimit-reset-requests", format_go_duration(status.reset_seconds).encode()),
    ]


def format_budget_warning(warnings: Iterable[QuotaUsage]) -> bytes:
    """Value of `x-budget-warning`: `user.jobs_per_day; used=81; soft=80; hard=100; reset=...`, comma-separated."""
    return ", ".join(_format_usage(one) for one in warnings).encode()


def _format_usage(one: QuotaUsage) -> str:
    values = {"used": one.used, "soft": one.limit.soft, "hard": one.limit.hard}
    facts = {name: one.limit.shown(value) for name, value in values.items()} | {"reset": format_utc(one.resets_at)}
    return "; ".join([one.limit.full_name, *(f"{name}={fact}" for name, fact in facts.items() if fact is not None)])


def format_utc(moment: datetime | None) -> str | None:
    """Format as `2026-11-25T00:00:00Z`; None stays None."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def format_go_duration(seconds: float) -> str:
    """Format seconds as Go prints durations, rounded up: `12ms`, `1s`, `6m0s`."""
    if seconds < 1:
        return f"{math.ceil(max(seconds, 0) * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
