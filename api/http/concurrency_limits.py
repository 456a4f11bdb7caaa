"""How many requests are open at once, in all and per caller. Counted per process: what they use up is the process's."""

from collections import Counter

from worker.core.errors import DreameryError
from worker.core.observability import metrics
from worker.core.settings import get_settings

_RETRY_AFTER_SECONDS = 5
# Probes are answered however full it is, or a full process would be taken for a dead one.
_ALWAYS = frozenset({"/healthz", "/readyz", "/metrics", "/ping"})


class OpenRequests:
    """The open requests of one API process. Belongs to its event loop."""

    def __init__(self) -> None:
        self._all = 0
        self._of: Counter[str] = Counter()

    def begin(self) -> None:
        """A request has come; `end` must follow."""
        self._all += 1

    def check(self, path: str) -> None:
        """Raises overloaded (503) when too many are open."""
        if self._all > get_settings().open_requests and path not in _ALWAYS:
            metrics.count("dreamery_requests_turned_away", "all")
            message = "Too many requests are open here. Try again in a few seconds."
            raise DreameryError("overloaded", message, retry_after=_RETRY_AFTER_SECONDS)

    def begin_of(self, caller: str) -> None:
        """It is known whose it is; `end` must be told. Raises too_many_open_requests (429), then it is not counted."""
        if self._of[caller] >= get_settings().open_requests_per_caller:
            metrics.count("dreamery_requests_turned_away", "caller")
            raise DreameryError("too_many_open_requests", retry_after=_RETRY_AFTER_SECONDS)
        self._of[caller] += 1

    def end(self, caller: str | None) -> None:
        """The answer has been sent, or its client is gone."""
        self._all -= 1
        if caller is not None:
            self._of[caller] -= 1
            if not self._of[caller]:
                del self._of[caller]
