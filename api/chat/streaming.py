"""The frames of a chat whose answer comes from jobs: role, lines of progress, each result when it is stored, the end.

The order is openai-compat section 3. A stream holds no thread and no connection; it reads its jobs when the hub rings,
and now and then besides, for places in a queue change without news of the job. Who leaves cancels nothing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from api.chat.chunks import DONE, Chunks, error_frame
from api.chat.completion import content_of, finish_of, first_line, progress_line
from api.generation.acceptance import Accepted
from api.generation.response import out_of_time, told_to_come_back
from api.http.errors import error_body
from api.http.sse import HEARTBEAT, HEARTBEAT_SECONDS
from api.jobs.serialization import failure_of
from api.jobs.watcher import Hub, Watch
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.job_state import JobState
from worker.core.observability.logging import get_logger
from worker.db.engine import AWAY_ERRORS, transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import JobView

log = get_logger("chat")


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: between heartbeats in silence; between two lines at least; between them at most; looks without news."""

    heartbeat: float = HEARTBEAT_SECONDS
    line_least: float = 1.0
    line_most: float = 50.0
    look: float = 5.0
    longest: float = 4 * 3600.0


PACE = Pace()
_SOON = 0.01


@dataclass(slots=True)
class ChatStream:
    """One stream: what it is about, and what it has told already."""

    hub: Hub
    accepted: Accepted
    chunks: Chunks
    base: str
    unanswered: Callable[[], None]  # called before the stream ends while its jobs go on
    with_usage: bool = False
    earlier: str | None = None
    pace: Pace = PACE
    _shown: set[UUID] = field(default_factory=set)  # jobs whose results were sent
    _results: int = 0
    _line: str = ""
    _line_at: float = 0.0
    _sent_at: float = 0.0
    _untold: bool = False  # there is something to tell, only too soon after the last line
    _database_away: bool = False

    async def frames(self) -> AsyncIterator[bytes]:
        """All frames, from the role to DONE."""
        try:
            async for frame in self._frames():
                self._sent_at = time.monotonic()
                yield frame
        except DreameryError as error:
            yield error_frame(error_body(error.kind, error.message, error.param))
        except Exception:
            log.exception("stream_failed", job_id=str(self.accepted.job_ids[0]))
            self.unanswered()
            yield error_frame(error_body(DreameryError("internal_error").kind, self._where()))
        yield DONE

    async def _frames(self) -> AsyncIterator[bytes]:
        yield self.chunks.role()
        names = [public_id("job", job_id) for job_id in self.accepted.job_ids]
        yield self.chunks.reasoning(first_line(names, self.chunks.model, self.earlier))
        self._line_at = started = time.monotonic()
        views: list[JobView] = []
        with self.hub.watching(self.accepted.job_ids) as watches:
            while not self._is_over(views):
                reading = asyncio.create_task(self._read(watches, views))
                # A database that is slow to answer keeps nobody waiting for a sign of life.
                while not (await asyncio.wait({reading}, timeout=self._silence_left()))[0]:
                    yield HEARTBEAT
                views = reading.result()
                for text in self._new_results(views):
                    yield self.chunks.content(text)
                if self._is_over(views):
                    break
                if self.hub.stopping and views:
                    self.unanswered()
                    raise told_to_come_back(views, self.base)
                if time.monotonic() - started >= self.pace.longest:
                    self.unanswered()
                    raise out_of_time(views, self.base)
                if frame := self._sign_of_life(views):
                    yield frame
                await watches[0].changed(self._patience())
        if not self._results:
            raise failure_of(views)[0]
        yield self.chunks.finish(finish_of(views))
        if self.with_usage:
            yield self.chunks.usage()

    @staticmethod
    def _is_over(views: list[JobView]) -> bool:
        return bool(views) and all(view.job.finished_at for view in views)

    async def _read(self, watches: list[Watch], known: list[JobView]) -> list[JobView]:
        """The jobs as they are; as they were while the database is away, for they go on without it."""
        try:
            views = await run_in_threadpool(_views, self.accepted.job_ids)
        except AWAY_ERRORS as error:
            if not self._database_away:
                log.warning("stream_waits_for_database", reason=type(error).__name__)
            self._database_away = True
            return known
        self._database_away = False
        if not views:
            raise DreameryError("job_not_found", "The job was removed before it ended.")
        by_id = {view.job.id: view.job for view in views}
        for watch in watches:
            if job := by_id.get(watch.job_id):
                watch.tell(job.state, job.event_seq)
        return views

    def _new_results(self, views: list[JobView]) -> list[str]:
        """The results of jobs that have succeeded since the last look, as far as they were asked for."""
        texts: list[str] = []
        for view in views:
            if view.job.state != JobState.SUCCEEDED or view.job.id in self._shown:
                continue
            self._shown.add(view.job.id)
            wanted = view.files[: max(self.accepted.n - self._results, 0)]
            self._results += len(wanted)
            texts += [content_of(item, self.base) for item in wanted]
        return texts

    def _sign_of_life(self, views: list[JobView]) -> bytes | None:
        """A line when there is something to tell and the last is not just gone, else a heartbeat when it is time."""
        line = progress_line(views, self.base) if views else self._line
        since = time.monotonic() - self._line_at
        self._untold = line != self._line and since < self.pace.line_least
        if line and not self._untold and (line != self._line or since >= self.pace.line_most):
            self._line, self._line_at = line, time.monotonic()
            return self.chunks.reasoning(line)
        return HEARTBEAT if self._silence_left() <= _SOON else None

    def _silence_left(self) -> float:
        return max(self._sent_at + self.pace.heartbeat - time.monotonic(), 0.0)

    def _patience(self) -> float:
        """How long to wait for news."""
        next_line = self.pace.line_least if self._untold else self.pace.line_most
        to_line = self._line_at + next_line - time.monotonic()
        return max(min(self.pace.look, self._silence_left(), to_line), _SOON)

    def _where(self) -> str:
        name = public_id("job", self.accepted.job_ids[0])
        return f"Something went wrong here, but job {name} goes on. Ask for it at /v1/jobs/{name}; do not repeat."


def _views(job_ids: list[UUID]) -> list[JobView]:
    """One try: a stream asks again by itself, and must not hold a thread while it waits."""
    with transaction() as tx:
        return queries.group_views(tx, job_ids)
