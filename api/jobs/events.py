"""Server-sent events of one job: a snapshot, then each change, then its end.

The `id` of an event is the number of the job's newest event. A client sends it back as `Last-Event-ID` to receive the
events it missed. Streams of the OpenAI-compatible routes carry no `id` (openai-compat rule 1).
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from api.http.sse import RESTARTING, sse, stream_events
from api.jobs.serialization import job_object
from api.jobs.watcher import JobWatcher, Watch
from worker.core.job_state import JobState
from worker.db.accounts import accounts
from worker.db.engine import transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import JobView, Viewer

# Fields of a note about platform accounts; the timeline decides who sees them.
_PLATFORM_ACCOUNT_FIELDS = ("account", "score", "passed_over")
_FINAL_EVENT = {JobState.SUCCEEDED: "completed", JobState.FAILED: "failed", JobState.CANCELLED: "cancelled"}


def _read(job_id: UUID, viewer: Viewer, after: int | None) -> tuple[JobView | None, list[bytes]]:
    """Return the job and the frames of its past events after number `after`; None = no past events."""
    with transaction() as tx:
        view = queries.job_view(tx, job_id, viewer)
        if view is None or after is None:
            return view, []
        hides_accounts = view.job.user_id is not None or accounts.any_has_owner(tx, view.job.account_ids)
        return view, _missed_frames(queries.events_after(tx, job_id, after), view.job, hides_accounts=hides_accounts)


def _missed_frames(rows: list[Any], job: Any, *, hides_accounts: bool) -> list[bytes]:
    """Return frames of past events. The newest state follows in the snapshot or final event."""
    frames = []
    for row in rows:
        if row.to_state in _FINAL_EVENT:
            continue
        data = {"state": row.to_state, "at": row.at.timestamp(), **row.note}
        for name in ("detail", *(_PLATFORM_ACCOUNT_FIELDS if hides_accounts else ())):
            data.pop(name, None)  # upstream messages, log ids and platform accounts are visible to operators only
        frames.append(sse("progress", {"id": f"job_{job.id.hex}", **data}, row.seq))
    return frames


class _JobEventSource:
    """The events of one watched job."""

    def __init__(self, job_watcher: JobWatcher, watch: Watch, viewer: Viewer, *, base: str, after: int | None) -> None:
        self._job_watcher, self._watch, self._viewer, self._base = job_watcher, watch, viewer, base
        self._after = after
        self._sent_seq = -1
        self._finished = False

    async def new_frames(self) -> AsyncIterator[bytes]:
        """Yield the missed events on the first call, and one event for each newer state of the job."""
        while self._watch.seq > self._sent_seq and not self._finished:
            first = self._sent_seq < 0
            after = self._after if first else None
            view, missed = await run_in_threadpool(_read, self._watch.job_id, self._viewer, after)
            if view is None:
                self._finished = True
                return
            for frame in missed:
                yield frame
            self._sent_seq = view.job.event_seq
            self._watch.update(view.job.state, self._sent_seq)
            final = _FINAL_EVENT.get(view.job.state)
            self._finished = final is not None
            event = final or ("snapshot" if first and self._after is None else "progress")
            yield sse(event, job_object(view, self._base), self._sent_seq)

    def is_finished(self) -> bool:
        """Return whether the final event was sent, or the job is no longer visible."""
        return self._finished

    def is_released(self) -> bool:
        """Return whether this process stops."""
        return self._job_watcher.stopping

    def release(self) -> bytes:
        """Return a comment: the client reconnects without losing an event."""
        return RESTARTING

    def expire(self) -> bytes:
        """Return nothing: the stream of one job has no deadline."""
        return b""

    async def wait(self, seconds: float) -> object:
        """Wait for a change of the job."""
        return await self._watch.changed(seconds)


async def job_events(
    job_watcher: JobWatcher,
    job_id: UUID,
    viewer: Viewer,
    *,
    base: str,
    after: int | None,
    is_disconnected: Callable[[], Awaitable[bool]],
) -> AsyncIterator[bytes]:
    """Yield the frames of one job until it ends or the client disconnects."""
    with job_watcher.watch_jobs([job_id]) as (watch,):
        source = _JobEventSource(job_watcher, watch, viewer, base=base, after=after)
        async for frame in stream_events(source, is_disconnected=is_disconnected):
            yield frame
