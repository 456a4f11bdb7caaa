"""Keeps callers from waiting for a server that does not answer: after a failure they skip it for a moment.

While it is away, a single caller per pause finds out whether it is back; all others continue without it at once.
"""

import threading
import time

# The first pause, and the longest one: each failure doubles it.
PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 4.0
# A caller that has not reported its result after this time has ended without one.
_TRIAL_SECONDS = 15.0


class CircuitBreaker:
    """The state of one server as the threads of this process saw it last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._skip_until = 0.0  # 0 = the last call succeeded
        self._pause = PAUSE_SECONDS

    def may_call(self) -> bool:
        """Return whether to call the server. After True, call `record`."""
        if not self._skip_until:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._skip_until:
                return False
            self._skip_until = now + _TRIAL_SECONDS
            return True

    def record(self, *, success: bool) -> None:
        """Record the result of a call."""
        if success:
            self._skip_until, self._pause = 0.0, PAUSE_SECONDS
            return
        with self._lock:
            self._skip_until = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
