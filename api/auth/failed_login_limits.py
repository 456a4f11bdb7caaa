"""Rate limit for failed logins: a client that sends many invalid keys is rejected before the database lookup.

Counted per network address (IPv6: per /64) and minute in Redis for all processes; without Redis there is no limit.
Behind a proxy that TRUSTED_PROXIES does not name, the address is the proxy's, and all its clients count together. A
key that was valid recently is always looked up, so one attacker does not lock out others behind the same address.
"""

import hashlib
import time
from collections import OrderedDict

from starlette.requests import Request

from api.http.clients.address import network_of
from worker.core.errors import DreameryError
from worker.core.observability import metrics
from worker.core.settings import get_settings
from worker.messaging.rate_limits import RequestLimits

_KIND = "failed-keys"
_RETRY_AFTER_SECONDS = 60
# How long, and for how many keys, the process remembers that a key was valid.
_REMEMBER_SECONDS = 3600.0
_MAX_REMEMBERED = 10_000


class FailedLoginLimiter:
    """Counts failed logins for one API process."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._valid_until: OrderedDict[bytes, float] = OrderedDict()

    async def check(self, request: Request, key: str) -> None:
        """Call before a key is looked up. Raises too_many_failed_keys (429)."""
        limit, network = get_settings().failed_logins_per_minute, network_of(request)
        if not limit or self._was_valid(key):
            return
        if await self._limits.is_limit_reached(_KIND, network, per_minute=limit):
            metrics.count("dreamery_failed_keys", "throttled")
            raise DreameryError("too_many_failed_keys", retry_after=_RETRY_AFTER_SECONDS)

    async def record(self, request: Request, key: str, *, valid: bool) -> None:
        """Record the result of the lookup."""
        digest = _digest(key)
        self._valid_until.pop(digest, None)
        if valid:
            self._valid_until[digest] = time.monotonic() + _REMEMBER_SECONDS
            if len(self._valid_until) > _MAX_REMEMBERED:
                self._valid_until.popitem(last=False)
            return
        metrics.count("dreamery_failed_keys", "refused")
        limit, network = get_settings().failed_logins_per_minute, network_of(request)
        if limit:
            await self._limits.record(_KIND, network, per_minute=limit)

    def _was_valid(self, key: str) -> bool:
        return self._valid_until.get(_digest(key), 0.0) > time.monotonic()


def _digest(key: str) -> bytes:
    # A memory dump of this process must not reveal keys.
    return hashlib.sha256(key.encode()).digest()
