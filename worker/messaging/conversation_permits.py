"""Limits the conversations of one process, because each occupies a thread for minutes.

A worker that also runs other tasks has more threads than conversations may use, so the others always find one.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from worker.core.concurrency.once import Once
from worker.core.settings import get_settings


class ConversationPermits:
    """At most `limit` holders at a time; none of them waits."""

    def __init__(self, limit: int) -> None:
        self._free = threading.Semaphore(limit)
        self._lock = threading.Lock()
        self._most_proxied = max(limit // 2, 1)
        self._proxied: Counter[str] = Counter()

    @contextmanager
    def hold(self) -> Iterator[bool]:
        """Hold a permit within the block; False = all are in use."""
        permitted = self._free.acquire(blocking=False)
        try:
            yield permitted
        finally:
            if permitted:
                self._free.release()

    @contextmanager
    def hold_proxied(self, owner: str) -> Iterator[bool]:
        """Hold a share for a conversation through a proxy that its owner named, and that may stall; False = none left.

        They use at most half of the permits, and an owner at most as many of these as are free.
        """
        with self._lock:
            permitted = self._proxied[owner] < self._most_proxied - self._proxied.total()
            self._proxied[owner] += permitted
        try:
            yield permitted
        finally:
            with self._lock:
                self._proxied[owner] -= permitted
                if not self._proxied[owner]:
                    del self._proxied[owner]


@Once
def conversation_permits() -> ConversationPermits:
    """Return the permits of this process."""
    return ConversationPermits(get_settings().conversation_concurrency)
