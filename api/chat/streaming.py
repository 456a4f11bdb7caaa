"""Chat streams whose answer comes from jobs: role, progress lines, each result when it is stored, the end.

The order of the frames is openai-compat section 3. A stream holds no thread and no database connection. It reads its
jobs when the job watcher reports a change, and regularly, because queue positions change without an event. Closing the
stream does not cancel the job.
"""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from api.chat.chunks import DONE, Chunks, error_frame
from api.chat.completion import accepted_line, file_markdown, finish_reason, progress_line
from api.generation.acceptance import AcceptedRequest
from api.generation.response import restart_notice, timeout_error
from api.http.errors import error_body
from api.http.sse import stream_events
from api.jobs.serialization import group_error
from api.jobs.watcher import JobWatcher, Watch
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.job_state import JobState
from worker.core.observability.logging import get_logger
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import JobView

log = get_logger("chat")


@dataclass(frozen=True, slots=True)
class StreamTiming:
    """Intervals of a chat stream, in seconds."""

    heartbeat: float | None = None  # the interval of the settings
    min_line_interval: float = 1.0
    max_line_interval: float = 50.0  # an unchanged progress line is repeated after this time
    refresh_interval: float = 5.0
    deadline: float = 4 * 3600.0


DEFAULT_TIMING = StreamTiming()
_MIN_WAIT_SECONDS = 0.01


async def complete_stream(
    frames: AsyncIterator[bytes], *, job_id: UUID, mark_unanswered: Callable[[], None]
) -> AsyncIterator[bytes]:
    """Yield the frames of a chat, an error frame if they fail, and DONE.

    `mark_unanswered` is called when an unexpected error ends the stream before its jobs end.
    """
    try:
        async for frame in frames:
            yield frame
    except DreameryError as error:
        yield error_frame(error_body(error.kind, error.message, error.param))
    except Exception:
        log.exception("stream_failed", job_id=str(job_id))
        mark_unanswered()
        name = public_id("job", job_id)
        message = f"Internal error, but job {name} continues. Read it at /v1/jobs/{name}; do not repeat the request."
        yield error_frame(error_body(DreameryError("internal_error").kind, message))
    yield DONE


@dataclass(slots=True)
class ChatStream:
    """One stream: its jobs and what was sent so far. It is the event source of its frames."""

    job_watcher: JobWatcher
    accepted: AcceptedRequest
    chunks: Chunks
    base: str
    mark_unanswered: Callable[[], None]  # called when the stream ends before its jobs do
    with_usage: bool = False
    mark_failed: Callable[[], None] = lambda: None  # called when the stream ends with the failure of its jobs
    note: str | None = None  # what the jobs do with earlier pictures
    timing: StreamTiming = DEFAULT_TIMING
    _watches: list[Watch] = field(default_factory=list)
    _views: list[JobView] = field(default_factory=list)
    _sent_jobs: set[UUID] = field(default_factory=set)  # jobs whose results were sent
    _sent_results: int = 0
    _line: str = ""
    _line_at: float = 0.0
    _line_pending: bool = False  # a new line waits for the minimum interval
    _database_unavailable: bool = False

    def frames(self) -> AsyncIterator[bytes]:
        """Return all frames, from the role to DONE."""
        return complete_stream(self._frames(), job_id=self.accepted.job_ids[0], mark_unanswered=self.mark_unanswered)

    async def _frames(self) -> AsyncIterator[bytes]:
        yield self.chunks.role()
        names = [public_id("job", job_id) for job_id in self.accepted.job_ids]
        yield self.chunks.reasoning(accepted_line(names, self.chunks.model, self.note))
        self._line_at = time.monotonic()
        timing = self.timing
        with self.job_watcher.watch_jobs(self.accepted.job_ids) as self._watches:
            events = stream_events(self, heartbeat_seconds=timing.heartbeat, deadline_seconds=timing.deadline)
            async for frame in events:
                yield frame
        if not self._sent_results:
            self.mark_failed()
            raise group_error(self._views)[0]
        yield self.chunks.finish(finish_reason(self._views))
        if self.with_usage:
            yield self.chunks.usage()

    async def new_frames(self) -> AsyncIterator[bytes]:
        """Yield new results, then a progress line when one is due."""
        self._views = await self._read()
        for text in self._new_results():
            yield self.chunks.content(text)
        if not self.is_finished() and not self.is_released() and (line := self._due_line()):
            yield self.chunks.reasoning(line)

    def is_finished(self) -> bool:
        """Return whether all jobs have ended."""
        return bool(self._views) and all(view.job.finished_at for view in self._views)

    def is_released(self) -> bool:
        """Return whether this process stops."""
        return self.job_watcher.stopping and bool(self._views)

    def release(self) -> bytes:
        """Raise `restarting` with the addresses of the jobs."""
        self.mark_unanswered()
        raise restart_notice(self._views, self.base)

    def expire(self) -> bytes:
        """Raise `generation_timeout` with the addresses of the jobs."""
        self.mark_unanswered()
        raise timeout_error(self._views, self.base)

    async def wait(self, seconds: float) -> object:
        """Wait for a change of any of the jobs, until the next refresh or line at most."""
        interval = self.timing.min_line_interval if self._line_pending else self.timing.max_line_interval
        to_line = max(self._line_at + interval - time.monotonic(), _MIN_WAIT_SECONDS)
        return await self._watches[0].changed(min(seconds, self.timing.refresh_interval, to_line))

    async def _read(self) -> list[JobView]:
        """Return the jobs as they are; as they were while the database is unavailable, since jobs continue meanwhile.

        Raises `job_not_found`.
        """
        try:
            views = await run_in_threadpool(_read_views, self.accepted.job_ids)
        except DATABASE_UNAVAILABLE_ERRORS as error:
            if not self._database_unavailable:
                log.warning("stream_waits_for_database", reason=type(error).__name__)
            self._database_unavailable = True
            return self._views
        self._database_unavailable = False
        if not views:
            raise DreameryError("job_not_found", "The job was removed before it ended.")
        by_id = {view.job.id: view.job for view in views}
        for watch in self._watches:
            if job := by_id.get(watch.job_id):
                watch.update(job.state, job.event_seq)
        return views

    def _new_results(self) -> list[str]:
        """Return the results of jobs that succeeded since the last read, at most as many as were requested."""
        texts: list[str] = []
        for view in self._views:
            if view.job.state != JobState.SUCCEEDED or view.job.id in self._sent_jobs:
                continue
            self._sent_jobs.add(view.job.id)
            files = view.files[: max(self.accepted.n - self._sent_results, 0)]
            self._sent_results += len(files)
            texts += [file_markdown(item, self.base) for item in files]
        return texts

    def _due_line(self) -> str | None:
        """Return a changed progress line after the minimum interval, or an unchanged one after the maximum."""
        line = progress_line(self._views, self.base) if self._views else self._line
        since = time.monotonic() - self._line_at
        changed = line != self._line
        self._line_pending = changed and since < self.timing.min_line_interval
        if not line or self._line_pending or not (changed or since >= self.timing.max_line_interval):
            return None
        self._line, self._line_at = line, time.monotonic()
        return line


def _read_views(job_ids: list[UUID]) -> list[JobView]:
    """Read once without retries: the stream reads again by itself and must not hold a thread meanwhile."""
    with transaction() as tx:
        return queries.group_views(tx, job_ids)
