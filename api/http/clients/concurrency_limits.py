"""Limits on concurrent requests, in total and per caller, for one process."""

from collections import Counter

from worker.core.errors import DreameryError
from worker.core.observability import metrics
from worker.core.settings import get_settings

_RETRY_AFTER_SECONDS = 5
# Probes are always answered; otherwise a busy process would look like a dead one.
_EXEMPT_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/ping"})


class OpenRequests:
    """Counts the open requests of one API process. Use it from one event loop only."""

    def __init__(self) -> None:
        self._total = 0
        self._by_caller: Counter[str] = Counter()

    def begin(self) -> None:
        """Count a new request; `end` must follow."""
        self._total += 1

    def check(self, path: str) -> None:
        """Raises overloaded (503) when too many requests are open."""
        if self._total > get_settings().open_requests and path not in _EXEMPT_PATHS:
            metrics.count("dreamery_requests_turned_away", "all")
            message = "This server has too many open requests. Try again in a few seconds."
            raise DreameryError("overloaded", message, retry_after=_RETRY_AFTER_SECONDS)

    def begin_for_caller(self, caller: str) -> None:
        """Count the request for its caller, to be passed to `end`. Raises too_many_open_requests (429), not counted."""
        if self._by_caller[caller] >= get_settings().open_requests_per_caller:
            metrics.count("dreamery_requests_turned_away", "caller")
            raise DreameryError("too_many_open_requests", retry_after=_RETRY_AFTER_SECONDS)
        self._by_caller[caller] += 1

    def end(self, caller: str | None) -> None:
        """Call after the response, or a disconnect. `caller` is None if the request was not counted for one."""
        self._total -= 1
        if caller is not None:
            self._by_caller[caller] -= 1
            if not self._by_caller[caller]:
                del self._by_caller[caller]
