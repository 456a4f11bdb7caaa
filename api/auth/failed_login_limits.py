"""Who sends many wrong keys is refused before the database is asked, for the rest of the minute.

Counted per network address (IPv6: per /64) in Redis for all processes together; without Redis nobody is refused. A key
that was right a while ago is always asked about, so one guesser does not lock out everybody behind the same address.
"""

import hashlib
import time
from collections import OrderedDict

from starlette.requests import Request

from worker.core.errors import DreameryError
from worker.core.observability import metrics
from worker.core.security.ip_addresses import is_public, network_of
from worker.core.settings import get_settings
from worker.messaging.rate_limits import RequestLimits

_KIND = "failed-keys"
_RETRY_AFTER_SECONDS = 60
# How long and of how many keys it is remembered that they were right.
_REMEMBER_SECONDS = 3600.0
_MOST_REMEMBERED = 10_000


class FailedKeys:
    """The counting of one API process."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._right: OrderedDict[bytes, float] = OrderedDict()

    async def admit(self, request: Request, key: str) -> None:
        """Before a key is looked up. Raises too_many_failed_keys (429)."""
        most, place = get_settings().failed_keys_per_minute, _place(request)
        if not most or place is None or self._was_right(key):
            return
        if await self._limits.is_over(_KIND, place, per_minute=most):
            metrics.count("dreamery_failed_keys", "throttled")
            raise DreameryError("too_many_failed_keys", retry_after=_RETRY_AFTER_SECONDS)

    async def note(self, request: Request, key: str, *, right: bool) -> None:
        """After it was looked up."""
        digest = _digest(key)
        self._right.pop(digest, None)
        if right:
            self._right[digest] = time.monotonic() + _REMEMBER_SECONDS
            if len(self._right) > _MOST_REMEMBERED:
                self._right.popitem(last=False)
            return
        metrics.count("dreamery_failed_keys", "refused")
        most, place = get_settings().failed_keys_per_minute, _place(request)
        if most and place is not None:
            await self._limits.note(_KIND, place, per_minute=most)

    def _was_right(self, key: str) -> bool:
        return self._right.get(_digest(key), 0.0) > time.monotonic()


def _digest(key: str) -> bytes:
    # Nobody who reads this process's memory should find keys that are used no more.
    return hashlib.sha256(key.encode()).digest()


def _place(request: Request) -> str | None:
    """Whom to count. None = not known: the address is that of a proxy which TRUSTED_PROXIES does not name.

    Behind such a proxy everybody has one address, and counting it would let one guesser lock out all others.
    """
    place = network_of(request.client.host) if request.client else None
    if place is None or "x-forwarded-for" not in request.headers or _is_outside(place):
        return place
    # uvicorn puts the address a trusted proxy tells in place of the proxy's own, with no port.
    return place if request.client and request.client.port == 0 else None


def _is_outside(place: str) -> bool:
    return is_public(place.partition("/")[0])
