"""Who is still there: the HTTP requests of this process that made or joined jobs, and how each of them ended.

Whether a repeat joins depends on it (openai-compat section 8). The ends are written in batches, apart from the
requests: a cut one has nobody left to wait for it. Each batch comes with a sign of life, so another process that sees
one knows that everything which ended here before is noted.
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
from worker.db.jobs.idempotency import Ended, Holder

log = get_logger("attendance")

End = Literal["answered", "timeout", "cut"]

# A process that gave no sign of life for this long is dead.
LEASE_SECONDS = 5.0
_BEAT_SECONDS = 1.0
_FLUSH_SECONDS = 0.05
# A client's own timeout begins before ours and may be kept a little late.
_SLACK_SECONDS = 1.0


@dataclass(slots=True)
class Visit:
    """One HTTP request that makes or joins jobs."""

    attendance: "Attendance"
    retries: int = 0  # how often its client has sent it before, as the SDKs tell
    route: str = ""
    gives_up_in: float | None = None  # seconds after which the client hangs up, if it said so
    id: UUID = field(default_factory=uuid4)
    arrived: float = field(default_factory=time.monotonic)
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # set once the client has hung up
    out_of_time: bool = False
    group_id: UUID | None = None  # the jobs it stands for, perhaps: set before the commit
    ended: End | None = None

    @property
    def holder(self) -> Holder:
        """How the rows know it."""
        patience = None if self.gives_up_in is None else self.gives_up_in + _SLACK_SECONDS
        return Holder(id=self.id, process=self.attendance.process, gives_up_in=patience)

    @property
    def waited(self) -> float:
        """Seconds since it came."""
        return time.monotonic() - self.arrived

    def end(self, how: End) -> None:
        """The HTTP request is over. The first word counts."""
        if self.ended is None:
            self.ended = how
            self.attendance.note_end(self)


class Attendance:
    """All visits of this process."""

    def __init__(self) -> None:
        self.process = uuid4()
        self._visits: dict[UUID, Visit] = {}
        self._ended: list[Visit] = []
        self._bell = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Give the first sign of life, before any request is accepted, and go on giving them."""
        with contextlib.suppress(*DATABASE_ERRORS):  # the next one comes in a second
            await self._flush()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Note the last ends; what is open yet is cut."""
        self._stopping = True
        self._bell.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(*DATABASE_ERRORS):  # then the lease runs out instead
            await self._flush()
            await run_in_threadpool(self._leave)

    def visit(self, request: Request) -> Visit:
        """The visit of this HTTP request, begun by the first to ask. The frame around the answer ends it."""
        known: Visit | None = getattr(request.state, "visit", None)
        if known is not None:
            return known
        count = request.headers.get("x-stainless-retry-count", "")
        visit = Visit(
            attendance=self,
            retries=int(count) if count.isdecimal() and len(count) < 5 else 0,
            route=f"{request.method} {request.url.path}",
        )
        self._visits[visit.id] = visit
        request.state.visit = visit
        return visit

    def note_end(self, visit: Visit) -> None:
        """A visit has ended: write it soon."""
        self._ended.append(visit)
        self._bell.set()

    def known(self, holder: UUID) -> Visit | None:
        """A visit of this process that is open, or whose end is not written yet."""
        return self._visits.get(holder)

    async def _run(self) -> None:
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                # `wait_for` may lose a cancellation that comes together with the bell (until Python 3.12).
                async with asyncio.timeout(_BEAT_SECONDS):
                    await self._bell.wait()
                await asyncio.sleep(_FLUSH_SECONDS)  # so that a burst shares a statement
            self._bell.clear()
            try:
                await self._flush()
            except DATABASE_ERRORS as error:
                log.warning("ends_not_noted", reason=type(error).__name__)
                await asyncio.sleep(_BEAT_SECONDS)

    async def _flush(self) -> None:
        # The sign of life is of this moment: what ends between now and the commit is not in it.
        ended, at = self._ended[:], time.monotonic()
        await run_in_threadpool(self._write, ended, at)
        del self._ended[: len(ended)]
        # After the commit: who does not find it here finds it there.
        for visit in ended:
            self._visits.pop(visit.id, None)

    def _write(self, ended: list[Visit], at: float) -> None:
        ends = [
            Ended(group_id=visit.group_id, holder=visit.id, how=visit.ended)
            for visit in ended
            if visit.group_id is not None and visit.ended is not None
        ]
        with transaction() as tx:
            idempotency.note_ends(tx, ends)
            idempotency.beat(tx, self.process, age=time.monotonic() - at)

    def _leave(self) -> None:
        with transaction() as tx:
            idempotency.leave(tx, self.process)
