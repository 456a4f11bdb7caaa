"""The hub: one Redis subscription per process wakes whoever waits for a job. A waiter holds no thread, no connection.

Events may be lost: one grouped query every two seconds reads the state of everything that is waited for here, another
the words of conversations that somebody here has not heard.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from worker.core.job_state import FINAL, JobState
from worker.core.observability.logging import get_logger
from worker.db.engine import DATABASE_ERRORS, transaction
from worker.db.jobs import conversations, queries
from worker.messaging import pubsub

log = get_logger("hub")

RECONCILE_SECONDS = 2.0
_RECONNECT_SECONDS = 0.5
_MISSED_SECONDS = 0.4


class Watch:
    """Somebody's interest in one job: the newest known state, and a bell that rings on change.

    With `words` also what the agent has said in it so far; several watches may ring the same bell.
    """

    __slots__ = ("_bell", "behind", "job_id", "said", "seq", "state", "words")

    def __init__(self, job_id: UUID, bell: asyncio.Event | None = None, *, words: bool = False) -> None:
        self.job_id = job_id
        self.state: str = JobState.QUEUED
        self.seq = 0
        self.words = words
        self.said = ""
        self.behind = False  # a piece was missed: the row has it
        self._bell = bell or asyncio.Event()  # one for all jobs that are watched together

    @property
    def final(self) -> bool:
        """Whether the job has ended."""
        return self.state in FINAL

    def ring(self) -> None:
        """Wake whoever waits, without news."""
        self._bell.set()

    def tell(self, state: str, seq: int) -> None:
        """News of the job; older news than known is ignored."""
        if seq > self.seq:
            self.seq, self.state = seq, state
            self._bell.set()

    def hear(self, offset: int, text: str) -> None:
        """A piece of what is said. One that leaves a gap is not used; the row will have it soon."""
        new = len(self.said) - offset
        if new < 0:
            self.behind = True
        elif new < len(text):
            self.said += text[new:]
            self._bell.set()

    def read(self, said: str) -> None:
        """The text as the row has it. It may be older than what was heard."""
        if len(said) > len(self.said):
            self.said, self.behind = said, False
            self._bell.set()

    async def changed(self, timeout_seconds: float) -> bool:
        """Wait for news of this job, or of any that is watched together with it; False when none came in time."""
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
        self._missed = asyncio.Event()
        self._overhearing: list[Callable[[UUID], None]] = []
        self.stopping = False  # this process ends: nobody shall wait here any longer

    def let_go(self) -> None:
        """Wake everybody who waits; whoever sees `stopping` gives the answer there is."""
        self.stopping = True
        for watches in self._watches.values():
            for watch in watches:
                watch.ring()

    def overhear(self, listener: Callable[[UUID], None]) -> None:
        """Have a function told of each job that changes, whoever watches it or not. News may be lost on the way."""
        self._overhearing.append(listener)

    def start(self) -> None:
        """Begin listening."""
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._reconcile())]

    async def stop(self) -> None:
        """End listening."""
        left = set(self._tasks)
        while left:
            # Asked again: met while it connects, the Redis client turns a cancellation into an error of its own.
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=0.2)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextlib.contextmanager
    def watching(
        self, job_ids: list[UUID], *, words: bool = False, bell: asyncio.Event | None = None
    ) -> Iterator[list[Watch]]:
        """Register interest, before the row is read or written, so that nothing falls in between."""
        bell = bell or asyncio.Event()
        watches = [Watch(job_id, bell, words=words) for job_id in job_ids]
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
        """Wait until every job has ended; False when the time is over first, or the process stops."""
        until = time.monotonic() + timeout_seconds
        for watch in watches:
            while not watch.final:
                left = until - time.monotonic()
                if self.stopping or left <= 0 or not await watch.changed(left):
                    return False
        return True

    def _tell(self, job_id: UUID, state: str, seq: int) -> None:
        for watch in self._watches.get(job_id, ()):
            watch.tell(state, seq)

    def _hear(self, job_id: UUID, offset: int, text: str) -> None:
        for watch in self._watches.get(job_id, ()):
            if watch.words:
                watch.hear(offset, text)
                if watch.behind:
                    self._missed.set()

    async def _listen(self) -> None:
        while True:
            try:
                async for news in pubsub.subscribe():
                    if isinstance(news, pubsub.Words):
                        self._hear(news.job_id, news.offset, news.text)
                    else:
                        self._tell(news.job_id, news.state, news.seq)
                        for listener in self._overhearing:
                            listener(news.job_id)
            except pubsub.BUS_ERRORS as error:
                log.warning("events_away", reason=type(error).__name__)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _reconcile(self) -> None:
        while True:
            await self._pause()
            wanted = list(self._watches)
            if not wanted:
                continue
            heard = self._least_heard()
            try:
                states = await run_in_threadpool(_read_states, wanted)
                said = await run_in_threadpool(_read_said, heard) if heard else {}
            except DATABASE_ERRORS as error:
                log.warning("reconcile_failed", reason=type(error).__name__)
                continue
            for job_id, text in said.items():
                for watch in self._watches.get(job_id, ()):
                    watch.read(text)
            for job_id, (state, seq) in states.items():
                self._tell(job_id, state, seq)

    async def _pause(self) -> None:
        """Until the next reading: two seconds, or a moment after somebody missed a piece of text."""
        try:
            await asyncio.wait_for(self._missed.wait(), RECONCILE_SECONDS)
        except TimeoutError:
            return
        # The row is written once a second: what was missed may not be in it yet.
        await asyncio.sleep(_MISSED_SECONDS)
        self._missed.clear()

    def _least_heard(self) -> dict[UUID, int]:
        """How many characters of each conversation the slowest of its listeners has."""
        return {
            job_id: min(len(watch.said) for watch in listeners)
            for job_id, watches in self._watches.items()
            if (listeners := [watch for watch in watches if watch.words])
        }


def _read_said(heard: dict[UUID, int]) -> dict[UUID, str]:
    with transaction() as tx:
        return conversations.said_beyond(tx, heard)


def _read_states(job_ids: list[UUID]) -> dict[UUID, tuple[str, int]]:
    with transaction() as tx:
        return queries.current_states(tx, job_ids)
