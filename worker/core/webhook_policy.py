"""What is fixed about webhooks and needs no database: the events, when to try again, and which addresses are taken."""

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
WebhookEvent = Literal["job.completed", "job.failed", "job.cancelled", "job.started"]
WEBHOOK_EVENTS: tuple[WebhookEvent, ...] = get_args(WebhookEvent)
FINAL_EVENTS: tuple[WebhookEvent, ...] = tuple(event for event in WEBHOOK_EVENTS if event != "job.started")
TEST_EVENT = "webhook.test"

# Standard Webhooks' schedule after the first try at once: seconds after each failed one, together a little over 3 days.
RETRY_DELAYS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
# An endpoint that took nothing for so long is disabled when the next event is given up.
FAILING_DAYS = 5
# How long the secret before a rotation still signs.
ROTATION_HOURS = 24

# Answers of a receiver (or the proxy before it) that has too much to do.
_BUSY = frozenset({429, 502, 503, 504})
_PAUSE_SECONDS = 30.0
_SLOW_SECONDS = 10.0
_MOST_RETRY_AFTER = 3600.0
_JITTER = 0.1

MAX_URL_CHARS = 2000
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f\\]")


def next_delay(
    tries: int, *, event: str, status: int | None, retry_after: float | None = None, dice: float
) -> float | None:
    """Seconds until the next try after `tries` failed ones; None = given up. `dice` in 0..1 spreads it by a tenth.

    410 Gone is the receiver's word that it never wants this. A test event is tried once. A busy receiver's
    `Retry-After` may make it later, up to an hour, never earlier.
    """
    if status == 410 or event == TEST_EVENT or tries > len(RETRY_DELAYS):
        return None
    delay = RETRY_DELAYS[tries - 1] * (1 - _JITTER + 2 * _JITTER * dice)
    return max(delay, min(retry_after or 0.0, _MOST_RETRY_AFTER)) if status in _BUSY else delay


def pause_seconds(*, status: int | None, seconds: float, retry_after: float | None = None) -> float | None:
    """How long all of an endpoint's deliveries wait after this answer; None = they go on.

    Also after an answer that took long: a receiver that lets everybody wait would hold our threads.
    """
    if status in _BUSY:
        return max(_PAUSE_SECONDS, min(retry_after or 0.0, _MOST_RETRY_AFTER))
    return _PAUSE_SECONDS if seconds >= _SLOW_SECONDS else None


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """A `Retry-After` header (RFC 9110 10.2.3: seconds or a date) in seconds from `now`; None = absent or nonsense."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
        return max((moment - now).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None


def check_url(url: str, settings: Settings | None = None) -> None:
    """Refuse an address that webhooks must not go to. Raises ValueError with the reason.

    Names are not resolved here: the fetcher checks every address that it connects to.
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
        raise ValueError("is not a web address") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise ValueError("must start with https:// or http:// and name a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a user name or password; deliveries are signed instead")
    allowed = is_allowed_private(host, port or (443 if parts.scheme == "https" else 80), settings.fetch_allow)
    if not allowed and _names_private_place(host):
        raise ValueError(
            "names a private address, which webhooks do not go to (an operator can allow it with DREAMERY_FETCH_ALLOW)"
        )
    if parts.scheme == "http" and settings.env == "production" and not allowed:
        raise ValueError("must start with https:// (http:// would be readable on the way)")


def _names_private_place(host: str) -> bool:
    """Whether a host is a private address written out, in any of the spellings that resolvers take."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        try:
            # 127.1, 2130706433, 0x7f000001: a parse, no look-up.
            address = socket.inet_ntoa(socket.inet_aton(host))
        except (OSError, UnicodeEncodeError):
            return False
    return not is_public(address)
