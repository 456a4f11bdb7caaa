"""What stands between the socket and the routes: leave for browsers (CORS), compression, what headers say of limits."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from worker.db.users.quotas import Used
from worker.messaging.rate_limits import Standing

# Headers of answers that scripts of other origins may read (openai-compat section 2).
_EXPOSED = (
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
    "x-budget-warning",
    "x-job-id",
    "x-partial-results",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-request-id",
    "x-should-retry",
)
_LEAST_COMPRESSED = 1000
_LEVEL = 5


def open_to_browsers(app: ASGIApp) -> ASGIApp:
    """The app with leave for every origin. No credentials: a page must bring a key, so no origin is worth refusing.

    Asked-for headers are reflected, since `*` does not cover Authorization. Hosted front ends may call a Dreamery on
    the user's own machine (private network access).
    """
    return CORSMiddleware(
        app,
        allow_origins=["*"],
        allow_methods=["*"],
        allow_headers=["*"],
        allow_private_network=True,
        expose_headers=_EXPOSED,
        max_age=86400,
    )


class CompressedReads:
    """Compression of what is read: lists, models, documents. Streams and pictures never are (by their content type).

    Answers of creating calls stay plain: they are small, or base64 of pictures that are compressed already.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._plain = app
        self._compressed = GZipMiddleware(app, minimum_size=_LEAST_COMPRESSED, compresslevel=_LEVEL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        reads = scope["type"] == "http" and scope["method"] == "GET"
        await (self._compressed if reads else self._plain)(scope, receive, send)


def limit_headers(standing: Standing) -> list[tuple[bytes, bytes]]:
    """OpenAI's trio; the reset as a Go duration."""
    return [
        (b"x-ratelimit-limit-requests", str(standing.limit).encode()),
        (b"x-ratelimit-remaining-requests", str(standing.remaining).encode()),
        (b"x-ratelimit-reset-requests", go_duration(standing.reset_seconds).encode()),
    ]


def budget_warning(warnings: Iterable[Used]) -> bytes:
    """Limits whose soft value is reached: `user.jobs_per_day; used=81; soft=80; hard=100; reset=...`, by commas."""
    return ", ".join(_told(one) for one in warnings).encode()


def _told(one: Used) -> str:
    facts = {"used": one.used, "soft": one.limit.soft, "hard": one.limit.hard, "reset": utc_text(one.resets_at)}
    return "; ".join([one.limit.full_name, *(f"{name}={fact}" for name, fact in facts.items() if fact is not None)])


def utc_text(moment: datetime | None) -> str | None:
    """`2026-11-25T00:00:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def go_duration(seconds: float) -> str:
    """`12ms`, `1s`, `6m0s`: as Go prints durations, rounded up."""
    if seconds < 1:
        return f"{math.ceil(max(seconds, 0) * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
