"""Server-sent events of a job: a snapshot, then what happens, then its end.

Here, and only here, events carry an `id` (openai-compat rule 1): the number of the job's newest event, which a client
sends back as `Last-Event-ID` to get what it missed.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from api.http.sse import sse
from api.jobs.serialization import job_object
from api.jobs.watcher import Hub
from worker.core.job_state import JobState
from worker.db.engine import transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import JobView, Viewer

HEARTBEAT_SECONDS = 12.0
_HEARTBEAT = b": ka\n"
# An end without a final event: clients connect again, with their `Last-Event-ID`.
_COME_BACK = b": this server restarts\n"
# What a note may tell of the platform's own accounts; the timeline says who may see it.
_OF_THE_POOL = ("account", "score", "passed_over")
_FINAL_EVENT = {JobState.SUCCEEDED: "completed", JobState.FAILED: "failed", JobState.CANCELLED: "cancelled"}


def _read(job_id: UUID, viewer: Viewer, after: int | None) -> tuple[JobView | None, list[Any]]:
    with transaction() as tx:
        view = queries.job_view(tx, job_id, viewer)
        return view, (queries.events_after(tx, job_id, after) if after is not None and view is not None else [])


def _missed(rows: list[Any], job: Any) -> list[bytes]:
    """Events as they were written; the newest state goes into the snapshot or final event that follows."""
    frames = []
    for row in rows:
        if row.to_state in _FINAL_EVENT:
            continue
        data = {"state": row.to_state, "at": row.at.timestamp(), **row.note}
        for name in ("detail", *(_OF_THE_POOL if job.user_id is not None else ())):
            data.pop(name, None)  # upstream's own words and log ids are for the operator, as are his accounts
        frames.append(sse("progress", {"id": f"job_{job.id.hex}", **data}, row.seq))
    return frames


async def job_events(
    hub: Hub, job_id: UUID, viewer: Viewer, *, base: str, after: int | None, gone: Callable[[], Any]
) -> AsyncIterator[bytes]:
    """The frames of one job until it ends or the client is gone."""
    with hub.watching([job_id]) as (watch,):
        view, missed = await run_in_threadpool(_read, job_id, viewer, after)
        if view is None:
            return
        for frame in _missed(missed, view.job):
            yield frame
        event = "snapshot" if after is None else "progress"
        while view is not None:
            seq = view.job.event_seq
            watch.tell(view.job.state, seq)
            final = _FINAL_EVENT.get(view.job.state)
            yield sse(final or event, job_object(view, base), seq)
            if final:
                return
            while view.job.event_seq >= watch.seq:
                if hub.stopping:
                    yield _COME_BACK
                    return
                if not await watch.changed(HEARTBEAT_SECONDS):
                    if await gone():
                        return
                    yield _HEARTBEAT
            event = "progress"
            view, _ = await run_in_threadpool(_read, job_id, viewer, None)
