"""The watchdog of a worker process. Threads cannot be killed, so an overdue task ends the whole process.

The supervisor (or the container runtime) starts a new process, and the interrupted work is resumed from the rows.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings

log = get_logger("watchdog")

EXIT_CODE = 70
_CHECK_EVERY_SECONDS = 1.0


class Watchdog:
    """Tracks the running tasks of this process and their deadlines."""

    def __init__(self) -> None:
        self._deadlines: dict[int, tuple[str, float]] = {}
        self._allowed: dict[int, float] = {}
        self._started = False
        self._lock = threading.Lock()

    @contextmanager
    def watch(self, task: str, *, seconds: float | None = None) -> Iterator[None]:
        """Watch the task of this thread. Each of its pieces may take `seconds` (default: WATCHDOG_SECONDS)."""
        self._start_once()
        ident, allowed = threading.get_ident(), seconds or get_settings().watchdog_seconds
        self._allowed[ident] = allowed
        self._deadlines[ident] = (task, time.monotonic() + allowed)
        try:
            yield
        finally:
            self._deadlines.pop(ident, None)
            self._allowed.pop(ident, None)

    def renew(self, ident: int | None = None) -> None:
        """Reset the deadline: the task of this thread (or of thread `ident`) starts its next piece."""
        ident = threading.get_ident() if ident is None else ident
        watched, allowed = self._deadlines.get(ident), self._allowed.get(ident)
        if watched is not None and allowed is not None:
            self._deadlines[ident] = (watched[0], time.monotonic() + allowed)

    def renewer(self) -> Callable[[], None]:
        """Return a function that resets the deadline of this thread, from whatever thread a library calls it."""
        return partial(self.renew, threading.get_ident())

    def overdue(self) -> str | None:
        """Return the name of an overdue task, or None."""
        now = time.monotonic()
        return next((task for task, deadline in list(self._deadlines.values()) if deadline < now), None)

    def _start_once(self) -> None:
        with self._lock:
            if not self._started:
                self._started = True
                threading.Thread(target=self._guard, name="watchdog", daemon=True).start()

    def _guard(self) -> None:
        ticker = threading.Event()
        while not ticker.wait(_CHECK_EVERY_SECONDS):
            task = self.overdue()
            if task is not None:
                log.error("step_overstayed", step=task, action="exit")
                os._exit(EXIT_CODE)


watchdog = Watchdog()
