"""Wake requests that wait for a job: one Redis subscription per process. A waiter holds no thread and no connection.

Redis messages may be lost. Therefore one grouped query every two seconds reads the state of all watched jobs, and a
second one the conversation texts that a watch does not have yet.
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
from worker.messaging.redis_errors import explain

log = get_logger("hub")

RECONCILE_SECONDS = 2.0
_RECONNECT_SECONDS = 0.5
_TEXT_DELAY_SECONDS = 0.4


class Watch:
    """One waiter for one job: the newest known state, and an event that is set on change.

    `with_text` also collects the text of a conversation. Several watches may share one event.
    """

    __slots__ = ("_event", "job_id", "seq", "state", "text", "text_incomplete", "with_text")

    def __init__(self, job_id: UUID, event: asyncio.Event | None = None, *, with_text: bool = False) -> None:
        self.job_id = job_id
        self.state: str = JobState.QUEUED
        self.seq = 0
        self.with_text = with_text
        self.text = ""
        self.text_incomplete = False  # a chunk was missed; the row has it
        self._event = event or asyncio.Event()  # shared by jobs that are watched together

    @property
    def final(self) -> bool:
        """Whether the job has ended."""
        return self.state in FINAL

    def notify(self) -> None:
        """Wake the waiter without a change."""
        self._event.set()

    def update(self, state: str, seq: int) -> None:
        """Set the state of the job; an older `seq` is ignored."""
        if seq > self.seq:
            self.seq, self.state = seq, state
            self._event.set()

    def append_text(self, offset: int, text: str) -> None:
        """Add a chunk of text. A chunk after a gap is dropped; the row will contain it soon."""
        new = len(self.text) - offset
        if new < 0:
            self.text_incomplete = True
        elif new < len(text):
            self.text += text[new:]
            self._event.set()

    def replace_text(self, text: str) -> None:
        """Set the text that the row contains; ignored if it is older than the received text."""
        if len(text) > len(self.text):
            self.text, self.text_incomplete = text, False
            self._event.set()

    async def changed(self, timeout_seconds: float) -> bool:
        """Wait for a change of this job, or of any job that shares the event; False on timeout."""
        try:
            # Until Python 3.12 `wait_for` may lose a cancellation that arrives together with the change.
            async with asyncio.timeout(timeout_seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class JobWatcher:
    """All watches of this process, updated by the subscription and the grouped queries."""

    def __init__(self) -> None:
        self._watches: dict[UUID, set[Watch]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._text_missing = asyncio.Event()
        self._listeners: list[Callable[[UUID], None]] = []
        self.on_permissions_change: Callable[[], None] = lambda: None
        self.stopping = False  # this process is shutting down; waits end at once

    def release_waiters(self) -> None:
        """Wake all waiters; they see `stopping` and respond with the current state."""
        self.stopping = True
        for watches in self._watches.values():
            for watch in watches:
                watch.notify()

    def add_listener(self, listener: Callable[[UUID], None]) -> None:
        """Call `listener` for each changed job, watched or not. Changes may be lost."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Start the subscription and the grouped queries."""
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._reconcile())]

    async def stop(self) -> None:
        """Stop the subscription and the grouped queries."""
        pending = set(self._tasks)
        while pending:
            # Repeated, because the Redis client turns a cancellation during a connect into its own error.
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=0.2)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextlib.contextmanager
    def watch_jobs(
        self, job_ids: list[UUID], *, with_text: bool = False, event: asyncio.Event | None = None
    ) -> Iterator[list[Watch]]:
        """Watch jobs within the block. Start before the row is read or written, so that no change is missed."""
        event = event or asyncio.Event()
        watches = [Watch(job_id, event, with_text=with_text) for job_id in job_ids]
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
        """Wait until every job has ended; False on timeout, or when the process stops."""
        deadline = time.monotonic() + timeout_seconds
        for watch in watches:
            while not watch.final:
                remaining = deadline - time.monotonic()
                if self.stopping or remaining <= 0 or not await watch.changed(remaining):
                    return False
        return True

    def _update_watches(self, job_id: UUID, state: str, seq: int) -> None:
        for watch in self._watches.get(job_id, ()):
            watch.update(state, seq)

    def _append_texts(self, job_id: UUID, offset: int, text: str) -> None:
        for watch in self._watches.get(job_id, ()):
            if watch.with_text:
                watch.append_text(offset, text)
                if watch.text_incomplete:
                    self._text_missing.set()

    async def _listen(self) -> None:
        while True:
            try:
                async for message in pubsub.subscribe():
                    if isinstance(message, pubsub.AgentText):
                        self._append_texts(message.job_id, message.offset, message.text)
                    elif isinstance(message, pubsub.PermissionsChanged):
                        self.on_permissions_change()
                    else:
                        self._update_watches(message.job_id, message.state, message.seq)
                        for listener in self._listeners:
                            listener(message.job_id)
            except pubsub.REDIS_ERRORS as error:
                log.warning("events_away", reason=explain(error))
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _reconcile(self) -> None:
        while True:
            await self._pause()
            job_ids = list(self._watches)
            if not job_ids:
                continue
            lengths = self._shortest_texts()
            try:
                states = await run_in_threadpool(_read_states, job_ids)
                texts = await run_in_threadpool(_read_texts, lengths) if lengths else {}
            except DATABASE_ERRORS as error:
                log.warning("reconcile_failed", reason=type(error).__name__)
                continue
            for job_id, text in texts.items():
                for watch in self._watches.get(job_id, ()):
                    watch.replace_text(text)
            for job_id, (state, seq) in states.items():
                self._update_watches(job_id, state, seq)

    async def _pause(self) -> None:
        """Wait for the next read: two seconds, or shortly after a watch missed a chunk of text."""
        try:
            await asyncio.wait_for(self._text_missing.wait(), RECONCILE_SECONDS)
        except TimeoutError:
            return
        # The row is written once a second, so the missed chunk may not be in it yet.
        await asyncio.sleep(_TEXT_DELAY_SECONDS)
        self._text_missing.clear()

    def _shortest_texts(self) -> dict[UUID, int]:
        """Length of the text of each conversation, in the watch that has the least of it."""
        return {
            job_id: min(len(watch.text) for watch in text_watches)
            for job_id, watches in self._watches.items()
            if (text_watches := [watch for watch in watches if watch.with_text])
        }


def _read_texts(lengths: dict[UUID, int]) -> dict[UUID, str]:
    with transaction() as tx:
        return conversations.replies_longer_than(tx, lengths)


def _read_states(job_ids: list[UUID]) -> dict[UUID, tuple[str, int]]:
    with transaction() as tx:
        return queries.current_states(tx, job_ids)
