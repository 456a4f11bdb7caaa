"""Limits the conversations of one process, because each occupies a thread for minutes.

A worker that also runs other tasks has more threads than conversations may use, so the others always find one.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from worker.core.settings import get_settings


class ConversationPermits:
    """At most `limit` holders at a time; none of them waits."""

    def __init__(self, limit: int) -> None:
        self._free = threading.Semaphore(limit)

    @contextmanager
    def hold(self) -> Iterator[bool]:
        """Hold a permit within the block; False = all are in use."""
        permitted = self._free.acquire(blocking=False)
        try:
            yield permitted
        finally:
            if permitted:
                self._free.release()


@lru_cache(maxsize=1)
def conversation_permits() -> ConversationPermits:
    """Return the permits of this process."""
    return ConversationPermits(get_settings().conversation_concurrency)
