"""Calls made a little later, by one thread of this process. What is lost with the process, the tick makes good."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from worker.core.observability.logging import get_logger

log = get_logger("timer")


class Timer:
    """A heap of due times and a thread that works it off; the thread starts with the first call."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._started = False

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Run `action` in `seconds`. It must be short, for later ones wait behind it."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), action))
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="timer", daemon=True).start()
            self._changed.notify()

    def _next(self) -> Callable[[], object]:
        with self._changed:
            while True:
                left = self._due[0][0] - time.monotonic() if self._due else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(left)

    def _run(self) -> None:
        while True:
            action = self._next()
            try:
                action()
            except Exception:
                log.warning("timer_action_failed", exc_info=True)
