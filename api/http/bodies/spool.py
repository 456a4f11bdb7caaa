"""Bodies on disk: what arrives is written to one temporary file per request, and read from there in pieces.

Bytes under way are counted per caller and per process; a body that exceeds a limit is refused, and its bytes are free
again when its request ends, whatever happens.
"""

import io
import os
import tempfile
from collections import Counter
from typing import IO, Protocol

from worker.core.errors import DreameryError
from worker.core.observability import metrics
from worker.core.settings import get_settings

# Bodies up to this size stay in memory.
MEMORY_BYTES = 16 * 1024
_RETRY_AFTER_SECONDS = 10


class ByteSource(Protocol):
    """Bytes that can be read at any place."""

    size: int

    def read_at(self, offset: int, count: int) -> bytes:
        """Return up to `count` bytes from `offset`; fewer only at the end."""


class BytesUnderWay:
    """Counts the bytes of bodies that this process holds, in total and per owner. Use it from one event loop only."""

    def __init__(self) -> None:
        self._total = 0
        self._by_owner: Counter[str] = Counter()

    def add(self, owner: str, count: int) -> None:
        """Count bytes, which `remove` must take back. Raises too_many_open_requests (429) or overloaded (503)."""
        settings = get_settings()
        if self._by_owner[owner] + count > settings.request_bytes_under_way_per_caller:
            self._discard(owner)
            metrics.count("dreamery_requests_turned_away", "caller_bytes")
            message = "Your uploads under way are too large together. Wait until some of them have ended."
            raise DreameryError("too_many_open_requests", message, retry_after=_RETRY_AFTER_SECONDS)
        if self._total + count > settings.request_bytes_under_way:
            self._discard(owner)
            metrics.count("dreamery_requests_turned_away", "bytes")
            message = "This server receives too many uploads at the moment. Try again in a few seconds."
            raise DreameryError("overloaded", message, retry_after=_RETRY_AFTER_SECONDS)
        self._total += count
        self._by_owner[owner] += count

    def remove(self, owner: str, count: int) -> None:
        """Take back counted bytes."""
        self._total -= count
        self._by_owner[owner] -= count
        self._discard(owner)

    def of(self, owner: str) -> int:
        """Return the bytes that are counted for an owner."""
        return self._by_owner.get(owner, 0)

    def _discard(self, owner: str) -> None:
        if not self._by_owner[owner]:
            del self._by_owner[owner]


class Spool:
    """A growing sequence of bytes: small ones in memory, larger ones in a temporary file without a name."""

    def __init__(self) -> None:
        self.size = 0
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._written = 0

    def append(self, data: bytes | bytearray) -> bool:
        """Add bytes in memory; return whether `flush` should write them now."""
        self._memory += data
        self.size += len(data)
        return len(self._memory) > MEMORY_BYTES

    def flush(self) -> None:
        """Write to the file what is in memory. Blocks; raises OSError when the disk is full."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by `close`
        data = memoryview(bytes(self._memory))
        while data:
            data = data[self._file.write(data) :]
        self._written = self.size
        self._memory.clear()

    def read_at(self, offset: int, count: int) -> bytes:
        """Return up to `count` bytes from `offset`; fewer only at the end. Any thread, once nothing is added."""
        found = b""
        while self._file is not None and offset < self._written and count > 0:
            piece = os.pread(self._file.fileno(), min(count, self._written - offset), offset)
            if not piece:
                raise OSError("a temporary file is shorter than what was written")
            found += piece
            offset += len(piece)
            count -= len(piece)
        if count <= 0 or offset >= self.size:
            return found
        start = offset - self._written
        return found + bytes(self._memory[start : start + count])

    def close(self) -> None:
        """Free memory and disk."""
        self._memory.clear()
        if self._file is not None:
            self._file.close()


class _Window(io.RawIOBase):
    """A part of a source as a file."""

    def __init__(self, source: ByteSource, start: int, size: int) -> None:
        self._source, self._start, self._size = source, start, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("negative position")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        count = min(len(buffer), max(0, self._size - self._position))
        data = self._source.read_at(self._start + self._position, count)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def open_part(source: ByteSource, start: int, size: int) -> IO[bytes]:
    """Return a part of a source as a file to read. Closing it leaves the source open."""
    return io.BufferedReader(_Window(source, start, size), buffer_size=64 * 1024)
