"""Keeps a task alive while it moves a large file: each chunk renews the watchdog and the lease.

Used by submit (references) and save. A transfer that stalls renews nothing, so its timeouts still end it.
"""

import asyncio
import io
import threading
import time
from collections.abc import Callable, Coroutine
from typing import IO, Any, BinaryIO, TypeVar

from worker.core.concurrency.event_loop import in_thread, spawn
from worker.core.concurrency.watchdog import watchdog

Value = TypeVar("Value")

_WATCHDOG_EVERY_SECONDS = 1.0
LEASE_EVERY_SECONDS = 10.0


class LeaseLostError(Exception):
    """Another task has the row now, or it is in another state."""


async def keep_lease(work: Coroutine[Any, Any, Value], renew: Callable[[], object]) -> Value:
    """Run work on the event loop and renew its lease meanwhile, also while it waits for a turn.

    `renew` is a transaction; an exception from it ends the work, which must have time limits of its own.
    """
    task = spawn(work)
    try:
        while not (await asyncio.wait([task], timeout=LEASE_EVERY_SECONDS))[0]:
            await in_thread(renew)
        return task.result()
    finally:
        task.cancel()


class LeaseRenewer:
    """Renews the watchdog and the lease when called with each chunk.

    `renew_lease` renews the lease of the row in its own transaction. An exception from it ends the transfer. A
    library may call this from its own threads; the watched thread is always the one that created the object.
    """

    def __init__(self, renew_lease: Callable[[], object]) -> None:
        self._renew_lease = renew_lease
        self._ident = threading.get_ident()
        self._watchdog_renewed_at = self._lease_renewed_at = time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._watchdog_renewed_at >= _WATCHDOG_EVERY_SECONDS:
            self._watchdog_renewed_at = now
            watchdog.renew(self._ident)
        if now - self._lease_renewed_at >= LEASE_EVERY_SECONDS:
            self._lease_renewed_at = now
            self._renew_lease()


class RenewingFile(io.RawIOBase, BinaryIO):
    """A file that calls `renew` on every read."""

    def __init__(self, content: IO[bytes], renew: Callable[[], object]) -> None:
        super().__init__()
        self._content = content
        self._renew = renew

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read the next bytes into the buffer; return their number."""
        self._renew()
        chunk = self._content.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes of the underlying file."""
        self._renew()
        return self._content.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position and return it."""
        return self._content.seek(offset, whence)

    def tell(self) -> int:
        """Return the current position."""
        return self._content.tell()
