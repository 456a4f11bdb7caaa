"""Delayed calls on one thread of this process. Calls lost with the process are made up for by the tick."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from worker.core.observability.logging import get_logger

log = get_logger("timer")


class Timer:
    """A heap of scheduled calls and the thread that runs them; the thread starts with the first call."""

    def __init__(self) -> None:
        self._scheduled: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._started = False

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Run `action` after `seconds`. It must be short, because later actions wait for it."""
        with self._changed:
            heapq.heappush(self._scheduled, (time.monotonic() + seconds, next(self._order), action))
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="timer", daemon=True).start()
            self._changed.notify()

    def _next(self) -> Callable[[], object]:
        with self._changed:
            while True:
                remaining = self._scheduled[0][0] - time.monotonic() if self._scheduled else None
                if remaining is not None and remaining <= 0:
                    return heapq.heappop(self._scheduled)[2]
                self._changed.wait(remaining)

    def _run(self) -> None:
        while True:
            action = self._next()
            try:
                action()
            except BaseException:
                log.warning("timer_action_failed", exc_info=True)
