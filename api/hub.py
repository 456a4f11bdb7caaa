"""The hub: one Redis subscription per process wakes whoever waits for a job. A waiter holds no thread, no connection.

Events may be lost: one grouped query every two seconds reads the state of everything that is waited for here.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from worker.bus import events
from worker.core.log import get_logger
from worker.db import reports
from worker.db.engine import DATABASE_ERRORS, transaction
from worker.db.jobs import FINAL_STATES

log = get_logger("hub")

RECONCILE_SECONDS = 2.0
_RECONNECT_SECONDS = 0.5


class Watch:
    """Somebody's interest in one job: the newest known state, and a bell that rings on change."""

    __slots__ = ("_bell", "job_id", "seq", "state")

    def __init__(self, job_id: UUID) -> None:
        self.job_id = job_id
        self.state = "queued"
        self.seq = 0
        self._bell = asyncio.Event()

    @property
    def final(self) -> bool:
        """Whether the job has ended."""
        return self.state in FINAL_STATES

    def tell(self, state: str, seq: int) -> None:
        """News of the job; older news than known is ignored."""
        if seq > self.seq:
            self.seq, self.state = seq, state
            self._bell.set()

    async def changed(self, timeout_seconds: float) -> bool:
        """Wait for news; False when none came in time."""
        try:
            # `wait_for` may lose a cancellation that comes together with the news (until Python 3.12).
            async with asyncio.timeout(timeout_seconds):
                await self._bell.wait()
        except TimeoutError:
            return False
        self._bell.clear()
        return True


class Hub:
    """All watches of this process, fed by the subscription and the grouped query."""

    def __init__(self) -> None:
        self._watches: dict[UUID, set[Watch]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin listening."""
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._reconcile())]

    async def stop(self) -> None:
        """End listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextlib.contextmanager
    def watching(self, job_ids: list[UUID]) -> Iterator[list[Watch]]:
        """Register interest, before the row is read or written, so that nothing falls in between."""
        watches = [Watch(job_id) for job_id in job_ids]
        for watch in watches:
            self._watches.setdefault(watch.job_id, set()).add(watch)
        try:
            yield watches
        finally:
            for watch in watches:
                group = self._watches.get(watch.job_id, set())
                group.discard(watch)
                if not group:
                    self._watches.pop(watch.job_id, None)

    async def wait_final(self, watches: list[Watch], timeout_seconds: float) -> bool:
        """Wait until every job has ended; False when the time is over first."""
        until = time.monotonic() + timeout_seconds
        for watch in watches:
            while not watch.final:
                left = until - time.monotonic()
                if left <= 0 or not await watch.changed(left):
                    return False
        return True

    def _tell(self, job_id: UUID, state: str, seq: int) -> None:
        for watch in self._watches.get(job_id, ()):
            watch.tell(state, seq)

    async def _listen(self) -> None:
        while True:
            try:
                async for change in events.subscribe():
                    self._tell(change.job_id, change.state, change.seq)
            except events.BUS_ERRORS as error:
                log.warning("events_away", reason=type(error).__name__)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _reconcile(self) -> None:
        while True:
            await asyncio.sleep(RECONCILE_SECONDS)
            wanted = list(self._watches)
            if not wanted:
                continue
            try:
                states = await run_in_threadpool(_read_states, wanted)
            except DATABASE_ERRORS as error:
                log.warning("reconcile_failed", reason=type(error).__name__)
                continue
            for job_id, (state, seq) in states.items():
                self._tell(job_id, state, seq)


def _read_states(job_ids: list[UUID]) -> dict[UUID, tuple[str, int]]:
    with transaction() as tx:
        return reports.current_states(tx, job_ids)
