"""Fair use of memory and threads by the bodies of one API process: no caller can take what the others need.

Reading bodies never uses the threads that authenticate requests and query the database.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio.to_thread

from worker.core.errors import DreameryError

# Memory of parsed bodies. Up to the first size nothing is counted.
UNCOUNTED_BYTES = 64 * 1024
_PER_OWNER = 32_000_000
_TOTAL = 192_000_000
_WAIT_SECONDS = 60.0
_RETRY_AFTER_SECONDS = 5
_WRITING_THREADS = 4
_PARSING_THREADS = 2

T = TypeVar("T")


class MemoryShare:
    """Memory of parsed bodies, in bytes: who finds no room waits, behind earlier ones of the same owner only."""

    def __init__(self, per_owner: int = _PER_OWNER, total: int = _TOTAL) -> None:
        self._per_owner, self._limit = per_owner, total
        self._total = 0
        self._by_owner: Counter[str] = Counter()
        self._waiting: list[tuple[str, int, asyncio.Future[None]]] = []

    async def acquire(self, owner: str, count: int) -> int:
        """Wait for room and return the bytes to release. Raises too_many_open_requests (429) or overloaded (503)."""
        count = min(count, self._per_owner)
        if count <= UNCOUNTED_BYTES:
            return 0
        if self._fits(owner, count) and all(name != owner for name, _, _ in self._waiting):
            self._add(owner, count)
            return count
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (owner, count, granted)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await granted
        except BaseException as error:
            if granted.done() and not granted.cancelled():
                self.release(owner, count)
            elif entry in self._waiting:
                self._waiting.remove(entry)
            if isinstance(error, TimeoutError):
                raise self._refusal(owner, count) from None
            raise
        return count

    def release(self, owner: str, count: int) -> None:
        """Give back bytes, and let those continue for whom there is room now."""
        self._total -= count
        self._by_owner[owner] -= count
        if not self._by_owner[owner]:
            del self._by_owner[owner]
        behind: set[str] = set()
        for entry in list(self._waiting):
            name, size, granted = entry
            if name in behind or not self._fits(name, size):
                behind.add(name)
                continue
            self._waiting.remove(entry)
            if not granted.done():
                self._add(name, size)
                granted.set_result(None)

    def adjust(self, owner: str, before: int, count: int) -> int:
        """Count `count` bytes in place of `before`, also beyond the limits; return the bytes to release."""
        count = 0 if count <= UNCOUNTED_BYTES else count
        if count > before:
            self._add(owner, count - before)
        elif count < before:
            self.release(owner, before - count)
        return count

    def _fits(self, owner: str, count: int) -> bool:
        return self._by_owner[owner] + count <= self._per_owner and self._total + count <= self._limit

    def _add(self, owner: str, count: int) -> None:
        self._total += count
        self._by_owner[owner] += count

    def _refusal(self, owner: str, count: int) -> DreameryError:
        if self._by_owner[owner] + count > self._per_owner:
            message = "Your requests under way need too much memory together. Wait until some of them have ended."
            return DreameryError("too_many_open_requests", message, retry_after=_RETRY_AFTER_SECONDS)
        message = "This server receives too many large requests at the moment. Try again in a few seconds."
        return DreameryError("overloaded", message, retry_after=_RETRY_AFTER_SECONDS)


class BodyThreads:
    """Threads that write bodies to disk, and threads that parse them, one per owner at a time."""

    def __init__(self) -> None:
        self._writing = anyio.CapacityLimiter(_WRITING_THREADS)
        self._parsing = anyio.CapacityLimiter(_PARSING_THREADS)
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}

    async def write(self, function: Callable[[], T]) -> T:
        """Run a short function that writes to disk."""
        return await anyio.to_thread.run_sync(function, limiter=self._writing)

    async def parse(self, owner: str, function: Callable[[], T]) -> T:
        """Run a function that parses a body, after those of the same owner."""
        async with self._turn(owner):
            return await anyio.to_thread.run_sync(function, limiter=self._parsing)

    @asynccontextmanager
    async def _turn(self, owner: str) -> AsyncIterator[None]:
        lock, users = self._turns.get(owner, (asyncio.Lock(), 0))
        self._turns[owner] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._turns[owner]
            if users == 1:
                del self._turns[owner]
            else:
                self._turns[owner] = (lock, users - 1)
