"""Keep a step alive while it moves a large file: the watchdog and its lease are renewed by the bytes that move.

Part of submit (references) and save. Bytes that stand still renew nothing, so a stuck transfer ends as it always did.
"""

import io
import threading
import time
from collections.abc import Callable
from typing import IO, BinaryIO

from worker.core.watchdog import watchdog

_WATCHDOG_EVERY_SECONDS = 1.0
_LEASE_EVERY_SECONDS = 10.0


class Keeper:
    """Called with every piece. `lease` renews the row's lease, in its own transaction; what it raises ends the move.

    Pieces may be asked for by threads of a library: the step's own thread is the one that is watched.
    """

    def __init__(self, lease: Callable[[], object]) -> None:
        self._lease = lease
        self._ident = threading.get_ident()
        self._watched = self._leased = time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._watched >= _WATCHDOG_EVERY_SECONDS:
            self._watched = now
            watchdog.renew(self._ident)
        if now - self._leased >= _LEASE_EVERY_SECONDS:
            self._leased = now
            self._lease()


class KeptFile(io.RawIOBase, BinaryIO):
    """A file that renews as it is read."""

    def __init__(self, content: IO[bytes], keep: Callable[[], object]) -> None:
        super().__init__()
        self._content = content
        self._keep = keep

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """The next bytes."""
        self._keep()
        piece = self._content.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def read(self, size: int = -1) -> bytes:
        """The next bytes, as the file under it gives them."""
        self._keep()
        return self._content.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place."""
        return self._content.seek(offset, whence)

    def tell(self) -> int:
        """Where it is."""
        return self._content.tell()
