"""Track the HTTP requests of this process that created or joined jobs, and how each of them ended.

Deduplication uses this to decide whether a repeated request joins an earlier one (openai-compat section 8). A
background task writes the ends in batches, because nothing waits for a request whose client disconnected. Each batch
also renews the lease of this process: another process that sees the renewal knows that all earlier ends are recorded.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID, uuid4

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from worker.core.observability.logging import get_logger
from worker.db.engine import DATABASE_ERRORS, transaction
from worker.db.jobs import idempotency
from worker.db.jobs.idempotency import Holder, RequestEnd

log = get_logger("attendance")

End = Literal["answered", "timeout", "cut"]

# A process that has not renewed its lease for this long counts as dead.
LEASE_SECONDS = 5.0
_RENEW_SECONDS = 1.0
_IDLE_RENEW_SECONDS = 2.0  # while no request is tracked
_FLUSH_SECONDS = 0.05
# The client's timeout starts before our clock does, and may fire a little late.
_TIMEOUT_MARGIN_SECONDS = 1.0


@dataclass(slots=True)
class TrackedRequest:
    """One HTTP request that creates or joins jobs."""

    tracker: "RequestTracker"
    retries: int = 0  # earlier attempts of the client, from the SDK's retry header
    route: str = ""
    client_timeout: float | None = None  # seconds after which the client disconnects; None = unknown
    id: UUID = field(default_factory=uuid4)
    arrived: float = field(default_factory=time.monotonic)
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)  # set once the client has disconnected
    deadline_passed: bool = False
    wants_new_jobs: bool = False  # the caller asks for new jobs, even after a failure of the same request
    body_digest: str = ""  # of the body as it was sent
    failed: bool = False  # the answer is the failure of its jobs
    group_id: UUID | None = None  # its jobs; set before the commit, so the commit may still fail
    ended: End | None = None
    watcher: "asyncio.Task[None] | None" = None  # waits for the client's disconnect

    @property
    def holder(self) -> Holder:
        """The identity of this request in the database."""
        patience = None if self.client_timeout is None else self.client_timeout + _TIMEOUT_MARGIN_SECONDS
        return Holder(id=self.id, process=self.tracker.process, client_timeout=patience)

    @property
    def waited(self) -> float:
        """Seconds since the request arrived."""
        return time.monotonic() - self.arrived

    def end(self, how: End) -> None:
        """Record how the HTTP request ended. Only the first call has an effect."""
        if self.ended is None:
            self.ended = how
            self.tracker.record_end(self)


class RequestTracker:
    """All tracked requests of this process, and its lease."""

    def __init__(self) -> None:
        self.process = uuid4()
        self._requests: dict[UUID, TrackedRequest] = {}
        self._ended: list[TrackedRequest] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Take the lease before any request is accepted, and keep renewing it."""
        with contextlib.suppress(*DATABASE_ERRORS):  # the next attempt follows in a second
            await self._flush()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Write the last ends and release the lease; requests that are still open count as cut."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(*DATABASE_ERRORS):  # the lease expires instead
            await self._flush()
            await run_in_threadpool(self._release_lease)

    def track(self, request: Request) -> TrackedRequest:
        """Return the tracked request, created on the first call. The request middleware ends it."""
        existing: TrackedRequest | None = getattr(request.state, "tracked_request", None)
        if existing is not None:
            return existing
        count = request.headers.get("x-stainless-retry-count", "")
        tracked = TrackedRequest(
            tracker=self,
            retries=int(count) if count.isdecimal() and len(count) < 5 else 0,
            route=f"{request.method} {request.url.path}",
            wants_new_jobs=request.headers.get("x-dreamery-job", "").strip().lower() == "always",
        )
        self._requests[tracked.id] = tracked
        request.state.tracked_request = tracked
        return tracked

    def record_end(self, tracked: TrackedRequest) -> None:
        """Queue the end of a request for the next batch."""
        self._ended.append(tracked)
        self._wake.set()

    def find(self, holder: UUID) -> TrackedRequest | None:
        """Return a request of this process that is open, or whose end is not written yet; else None."""
        return self._requests.get(holder)

    async def _run(self) -> None:
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                # Until Python 3.12 `wait_for` may lose a cancellation that arrives together with the wake-up.
                async with asyncio.timeout(_RENEW_SECONDS if self._requests else _IDLE_RENEW_SECONDS):
                    await self._wake.wait()
                await asyncio.sleep(_FLUSH_SECONDS)  # a burst shares one statement
            self._wake.clear()
            try:
                await self._flush()
            except DATABASE_ERRORS as error:
                log.warning("ends_not_noted", reason=type(error).__name__)
                await asyncio.sleep(_RENEW_SECONDS)

    async def _flush(self) -> None:
        # The lease renewal carries this moment: requests that end between now and the commit are not in the batch.
        ended, at = self._ended[:], time.monotonic()
        await run_in_threadpool(self._write, ended, at)
        del self._ended[: len(ended)]
        # Only after the commit, so that every request is found either here or in the database.
        for tracked in ended:
            self._requests.pop(tracked.id, None)

    def _write(self, ended: list[TrackedRequest], at: float) -> None:
        ends = [
            RequestEnd(group_id=tracked.group_id, holder=tracked.id, outcome=tracked.ended, failed=tracked.failed)
            for tracked in ended
            if tracked.group_id is not None and tracked.ended is not None
        ]
        with transaction(plan_once=True) as tx:
            idempotency.record_request_ends(tx, ends)
            idempotency.record_heartbeat(tx, self.process, age=time.monotonic() - at)

    def _release_lease(self) -> None:
        with transaction(plan_once=True) as tx:
            idempotency.remove_process(tx, self.process)
