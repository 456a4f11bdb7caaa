"""The watchdog of a worker process. Threads know no time limits, so a step that overstays ends the whole process.

The supervisor (or the container runtime) starts a new one and the rows re-drive what was under way.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings

log = get_logger("watchdog")

EXIT_CODE = 70
_CHECK_EVERY_SECONDS = 1.0


class Watchdog:
    """Knows which steps run in this process and until when each may."""

    def __init__(self) -> None:
        self._until: dict[int, tuple[str, float]] = {}
        self._allowed: dict[int, float] = {}
        self._started = False
        self._lock = threading.Lock()

    @contextmanager
    def watch(self, step: str, *, seconds: float | None = None) -> Iterator[None]:
        """Watch the step that runs in this thread; each of its pieces may take `seconds` (default: the setting)."""
        self._start_once()
        ident, allowed = threading.get_ident(), seconds or get_settings().watchdog_seconds
        self._allowed[ident] = allowed
        self._until[ident] = (step, time.monotonic() + allowed)
        try:
            yield
        finally:
            self._until.pop(ident, None)
            self._allowed.pop(ident, None)

    def renew(self, ident: int | None = None) -> None:
        """The step of this thread (or of that id) has finished one bounded piece and begins another."""
        ident = threading.get_ident() if ident is None else ident
        watched, allowed = self._until.get(ident), self._allowed.get(ident)
        if watched is not None and allowed is not None:
            self._until[ident] = (watched[0], time.monotonic() + allowed)

    def overdue(self) -> str | None:
        """The name of a step that overstays, or None."""
        now = time.monotonic()
        return next((step for step, until in list(self._until.values()) if until < now), None)

    def _start_once(self) -> None:
        with self._lock:
            if not self._started:
                self._started = True
                threading.Thread(target=self._guard, name="watchdog", daemon=True).start()

    def _guard(self) -> None:
        ticker = threading.Event()
        while not ticker.wait(_CHECK_EVERY_SECONDS):
            step = self.overdue()
            if step is not None:
                log.error("step_overstayed", step=step, action="exit")
                os._exit(EXIT_CODE)


watchdog = Watchdog()
