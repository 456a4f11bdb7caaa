"""Debounces messages: many requests for the same message in a short time send it twice, at once and at the end.

A worker that receives a message handles several jobs, so a burst of 500 requests for one account needs a few dozen
messages, not 500. The last message is always sent after the last request, so no job waits for the tick.
"""

import threading
import time
from collections.abc import Callable, Hashable
from functools import partial
from typing import Generic, TypeVar

from worker.messaging.timer import Timer

Key = TypeVar("Key", bound=Hashable)


class Debounce(Generic[Key]):
    """Calls `send(key)` at most once per window and key, and always once after the last `request(key)`."""

    def __init__(self, send: Callable[[Key], object], *, window_seconds: float, timer: Timer) -> None:
        self._send = send
        self._window = window_seconds
        self._timer = timer
        self._lock = threading.Lock()
        self._sent_at: dict[Key, float] = {}
        self._waiting: set[Key] = set()

    def request(self, key: Key) -> None:
        """Send `key` now, or at the end of the window that its last send started."""
        now = time.monotonic()
        with self._lock:
            if key in self._waiting:
                return
            remaining = self._sent_at.get(key, 0.0) + self._window - now
            if remaining > 0:
                self._waiting.add(key)
                self._timer.after(remaining, partial(self._send_late, key))
                return
            self._record_sent(key, now)
        self._send(key)

    def _send_late(self, key: Key) -> None:
        with self._lock:
            self._waiting.discard(key)
            self._record_sent(key, time.monotonic())
        self._send(key)

    def _record_sent(self, key: Key, now: float) -> None:
        self._sent_at[key] = now
        if len(self._sent_at) > 10_000:
            self._sent_at = {known: at for known, at in self._sent_at.items() if at + self._window > now}
