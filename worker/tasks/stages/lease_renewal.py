"""Keeps the lease of a row during its work, and a thread alive while it moves a large file."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import IO, BinaryIO, TypeVar

from worker.core.concurrency.event_loop import in_thread, spawn

Value = TypeVar("Value")

_WATCHDOG_EVERY_SECONDS = 1.0
LEASE_EVERY_SECONDS = 10.0


class LeaseLostError(Exception):
    """Another task has the row now, or it is in another state."""


async def keep_lease(work: Awaitable[Value], renew: Callable[[], object]) -> Value:
    """Await work on the event loop and renew its lease meanwhile, also while it waits for a turn.

    `renew` is a transaction; an exception from it ends the work, which must have time limits of its own.
    """
    lease = _Lease(renew)
    try:
        return await work
    except asyncio.CancelledError:
        lease.raise_error()
        raise
    finally:
        lease.end()


class _Lease:
    """Renews a lease for the task that creates it. Short work costs no more than a timer."""

    def __init__(self, renew: Callable[[], object]) -> None:
        self._renew = renew
        self._task = asyncio.current_task()
        self._error: BaseException | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(LEASE_EVERY_SECONDS, self._start)

    def _start(self) -> None:
        self._renewing = spawn(self._renew_until_the_end())

    async def _renew_until_the_end(self) -> None:
        try:
            while True:
                error = await in_thread(self._try_renewal)
                if error is not None:
                    break
                await asyncio.sleep(LEASE_EVERY_SECONDS)
        except Exception as unexpected:  # noqa: BLE001
            error = unexpected
        # Raised by the task, whose work ends.
        self._error = error
        if self._task is not None:
            self._task.cancel()

    def _try_renewal(self) -> Exception | None:
        """Renew once; return the error. It is none of the work if that has ended meanwhile."""
        try:
            self._renew()
        except Exception as error:  # noqa: BLE001
            return error
        return None

    def raise_error(self) -> None:
        """Raise the error of a renewal that ended the work, if it was one."""
        if self._error is not None and self._task is not None and self._task.uncancel() == 0:
            raise self._error from None

    def end(self) -> None:
        """Renew no more."""
        self._timer.cancel()
        if self._renewing is not None:
            self._renewing.cancel()


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
