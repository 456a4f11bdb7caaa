"""The body of one request on its way: counted while it arrives, kept on disk, parsed in a thread, freed at the end."""

import hashlib
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request

from api.http.bodies.embedded_files import FileExtractor
from api.http.bodies.shares import BodyThreads, MemoryShare
from api.http.bodies.spool import BytesUnderWay, Spool
from api.http.clients.address import network_of
from worker.core.errors import DreameryError
from worker.core.observability.logging import get_logger

log = get_logger("api")

_KEY = "received_body"
_RETRY_AFTER_SECONDS = 10
# The texts of shorter bodies are searched at once.
_INLINE_BYTES = 4096

T = TypeVar("T")


@dataclass(slots=True)
class BodyShares:
    """What the bodies of one API process share."""

    under_way: BytesUnderWay = field(default_factory=BytesUnderWay)
    memory: MemoryShare = field(default_factory=MemoryShare)
    threads: BodyThreads = field(default_factory=BodyThreads)


class ReceivedBody:
    """The body of one request, and what it occupies."""

    def __init__(self, shares: BodyShares, owner: str) -> None:
        self.owner = owner
        self.spool = Spool()
        self.extractor = FileExtractor()
        self.digest = hashlib.sha256()
        # Set when all of it was written before the application asked for it.
        self.is_collected = False
        self._shares = shares
        # Bytes under way by owner: the first ones may arrive before the caller is known.
        self._counted: dict[str, int] = {}
        self._memory, self._memory_owner = 0, owner
        self._is_released = False

    def count(self, size: int) -> None:
        """Count bytes that arrived. Raises too_many_open_requests (429) or overloaded (503)."""
        self._shares.under_way.add(self.owner, size)
        self._counted[self.owner] = self._counted.get(self.owner, 0) + size

    async def write(self, data: bytes) -> None:
        """Add bytes. Raises `overloaded` when the disk is full."""
        self.digest.update(data)
        if self.spool.append(data):
            try:
                await self._shares.threads.write(self.spool.flush)
            except OSError as error:
                raise _disk_full(error) from None

    async def parse(self, function: Callable[[], T], size: int) -> T:
        """Run a function that parses the body and needs up to `size` bytes of memory, in a thread."""
        await self.reserve(size)
        try:
            return await self._shares.threads.parse(self.owner, function)
        except OSError as error:
            raise _disk_full(error) from None

    async def search(self, function: Callable[[], T]) -> T:
        """Run a function that searches the texts of the body: those of a long one in a thread."""
        if self.spool.size < _INLINE_BYTES:
            return function()
        return await self._shares.threads.parse(self.owner, function)

    async def reserve(self, size: int) -> None:
        """Wait for memory within the caller's share, once."""
        if not self._memory:
            self._memory = await self._shares.memory.acquire(self.owner, size)
            self._memory_owner = self.owner

    def keep_memory(self, size: int) -> None:
        """Count what the parsed form takes instead of what was reserved for parsing. Others wait if it is more."""
        self._memory = self._shares.memory.adjust(self._memory_owner, self._memory, size)

    def release(self) -> None:
        """Free everything. The files of the body can no longer be read."""
        if self._is_released:
            return
        self._is_released = True
        for owner, size in self._counted.items():
            self._shares.under_way.remove(owner, size)
        if self._memory:
            self._shares.memory.release(self._memory_owner, self._memory)
        self.spool.close()
        self.extractor.spool.close()


def received_body(request: Request) -> ReceivedBody:
    """Return the body of a request, counted for its caller once that is known."""
    return body_of(request.scope, request)


def body_of(scope: MutableMapping[str, Any], request: Request | None = None) -> ReceivedBody:
    """Return the body of a request by its scope."""
    state: dict[str, Any] = scope.setdefault("state", {})
    body: ReceivedBody | None = state.get(_KEY)
    if body is None:
        shares = state.setdefault("body_shares", BodyShares())
        body = state[_KEY] = ReceivedBody(shares, f"network:{network_of(request or Request(scope))}")
    if (caller := state.get("open_requests_caller")) is not None:
        body.owner = caller
    return body


def release_body(state: MutableMapping[str, Any]) -> None:
    """Free the body of a request, if it has one: after its jobs were planned, and at its end."""
    body: ReceivedBody | None = state.get(_KEY)
    if body is not None:
        body.release()


def _disk_full(error: OSError) -> DreameryError:
    log.error("body_not_written", reason=type(error).__name__, errno=error.errno)
    message = "This server has no room for uploads at the moment. Try again in a few seconds."
    return DreameryError("overloaded", message, retry_after=_RETRY_AFTER_SECONDS)
