"""Webhook rules that need no database: event names, the retry schedule, and allowed URLs."""

import ipaddress
import re
import socket
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Literal, get_args
from urllib.parse import urlsplit

from worker.core.security.ip_addresses import is_allowed_private, is_public
from worker.core.settings import Settings, get_settings

# The events an endpoint can subscribe to. Progress is only in the event stream: it would flood the outbox.
JobEvent = Literal["job.completed", "job.failed", "job.cancelled", "job.started"]
BatchEvent = Literal["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]
WebhookEvent = JobEvent | BatchEvent
JOB_EVENTS: tuple[JobEvent, ...] = get_args(JobEvent)
BATCH_EVENTS: tuple[BatchEvent, ...] = get_args(BatchEvent)
WEBHOOK_EVENTS: tuple[WebhookEvent, ...] = (*JOB_EVENTS, *BATCH_EVENTS)
FINAL_EVENTS: tuple[WebhookEvent, ...] = tuple(event for event in JOB_EVENTS if event != "job.started")
TEST_EVENT = "webhook.test"

# Retry schedule of Standard Webhooks: seconds after each failed attempt, in total a little over 3 days.
RETRY_DELAYS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
# An endpoint that has failed for this long is disabled when the next event is given up.
FAILING_DAYS = 5
# How long the previous secret also signs after a rotation.
ROTATION_HOURS = 24

# Status codes of an overloaded receiver or its proxy.
_BUSY = frozenset({429, 502, 503, 504})
_PAUSE_SECONDS = 30.0
_SLOW_SECONDS = 10.0
_MAX_RETRY_AFTER = 3600.0
_JITTER = 0.1

MAX_URL_CHARS = 2000
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f\\]")


def next_delay(
    failed_attempts: int, *, event: str, status: int | None, retry_after: float | None = None, random_fraction: float
) -> float | None:
    """Return the seconds until the next attempt; None = give up. `random_fraction` (0..1) adds up to 10 % jitter.

    410 Gone means that the receiver will never accept the event. A test event is sent once. The `Retry-After` of an
    overloaded receiver can delay the attempt, up to an hour, but never advance it.
    """
    if status == 410 or event == TEST_EVENT or failed_attempts > len(RETRY_DELAYS):
        return None
    delay = RETRY_DELAYS[failed_attempts - 1] * (1 - _JITTER + 2 * _JITTER * random_fraction)
    return max(delay, min(retry_after or 0.0, _MAX_RETRY_AFTER)) if status in _BUSY else delay


def pause_seconds(*, status: int | None, seconds: float, retry_after: float | None = None) -> float | None:
    """Return how long to pause all deliveries of an endpoint after this response; None = do not pause.

    A slow response also pauses the endpoint, because slow receivers occupy worker threads.
    """
    if status in _BUSY:
        return max(_PAUSE_SECONDS, min(retry_after or 0.0, _MAX_RETRY_AFTER))
    return _PAUSE_SECONDS if seconds >= _SLOW_SECONDS else None


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Parse a `Retry-After` header (RFC 9110 10.2.3) to seconds from `now`; None = absent or invalid."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
        return max((moment - now).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None


def check_url(url: str, settings: Settings | None = None) -> None:
    """Check that webhooks may be sent to this URL. Raises ValueError with the reason.

    Host names are not resolved here: the fetcher checks every address that it connects to.
    """
    settings = settings or get_settings()
    if len(url) > MAX_URL_CHARS:
        raise ValueError(f"must have at most {MAX_URL_CHARS} characters")
    if _UNPRINTABLE.search(url):
        raise ValueError("must not contain spaces, backslashes or control characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a valid URL") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise ValueError("must start with https:// or http:// and contain a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a user name or password; deliveries are signed instead")
    allowed = is_allowed_private(host, port or (443 if parts.scheme == "https" else 80), settings.fetch_allow)
    if not allowed and _is_private_host(host):
        raise ValueError(
            "is a private address, which webhooks may not use (an operator can allow it with DREAMERY_FETCH_ALLOW)"
        )
    if parts.scheme == "http" and settings.env == "production" and not allowed:
        raise ValueError("must start with https:// (http:// is not encrypted)")


def _is_private_host(host: str) -> bool:
    """Return whether a host is a literal private address, in any notation that resolvers accept."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        try:
            # 127.1, 2130706433, 0x7f000001: parsed without a DNS lookup.
            address = socket.inet_ntoa(socket.inet_aton(host))
        except (OSError, UnicodeEncodeError):
            return False
    return not is_public(address)
