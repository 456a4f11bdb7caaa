"""All jobs of a caller as one stream of server-sent events.

The job watcher reports every change on one subscription per process; a few times a second one query finds the owners of
the changed jobs. Each feed reads its own changed jobs, sends those that look different, and regularly sweeps for
changes that were lost. The `id` of an event is a time: a client sends it back as `Last-Event-ID` to receive what it
missed.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from api.http.sse import HEARTBEAT, RESTARTING, sse, stream_events
from api.jobs.serialization import job_object
from api.jobs.watcher import JobWatcher
from worker.core.ids import public_id
from worker.core.observability.logging import get_logger
from worker.db.engine import DATABASE_ERRORS, transaction
from worker.db.jobs import feed as jobs_feed
from worker.db.jobs import queries
from worker.db.jobs.feed import ChangedJobs, Version
from worker.db.jobs.queries import JobFilter, JobView, Viewer

log = get_logger("job_feed")

# Changes are collected for this long before their owners are looked up.
_BATCH_SECONDS = 0.2
# Progress and queue positions change without an event. A page shows the newest jobs; the others take turns.
_REFRESH_SECONDS = 1.5
_MAX_REFRESHED_JOBS = 60
# Jobs that are read and sent together: a burst of thousands must not become one frame.
_MAX_JOBS_PER_FRAME = 200
_SWEEP_SECONDS = 10.0
# A sweep that finds nothing sends a heartbeat itself; the loop sends one only when the database delays the sweep.
_HEARTBEAT_SECONDS = 1.5 * _SWEEP_SECONDS
_OVERLAP_SECONDS = 5.0
_MAX_MISSED = 300
# The client reconnects afterwards and is authenticated again.
_DEADLINE_SECONDS = 300.0


class Feed:
    """The subscription of one client to all jobs that it may see."""

    __slots__ = ("_account_ids", "_changed", "_event", "released", "viewer")

    def __init__(self, viewer: Viewer, *, released: bool = False) -> None:
        self.set_viewer(viewer)
        self.released = released  # this process stops
        self._changed: set[UUID] = set()
        self._event = asyncio.Event()

    def set_viewer(self, viewer: Viewer) -> None:
        """Set whose jobs the feed shows. A new session id has an account only after its first job."""
        self.viewer = viewer
        self._account_ids = frozenset(viewer.account_ids)

    def add_change(self, job_id: UUID, user_id: UUID | None, account_ids: list[UUID]) -> None:
        """Record that a job changed, if the viewer may see it (I9)."""
        own = user_id == self.viewer.user_id if user_id else not self._account_ids.isdisjoint(account_ids)
        if own:
            self._changed.add(job_id)
            self._event.set()

    def release(self) -> None:
        """End the feed: its client connects again, to a process that does not stop."""
        self.released = True
        self._event.set()

    async def wait_for_changes(self, timeout_seconds: float) -> set[UUID]:
        """Return the jobs that changed; empty after the timeout."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._event.wait()
        self._event.clear()
        changed, self._changed = self._changed, set()
        return changed


class JobFeeds:
    """All feeds of this process."""

    def __init__(self, job_watcher: JobWatcher) -> None:
        self._job_watcher = job_watcher
        self._feeds: set[Feed] = set()
        self._changed: set[UUID] = set()
        self._event = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to distribute changes to the feeds."""
        self._job_watcher.add_listener(self._add_change)
        self._task = asyncio.create_task(self._distribute())

    async def stop(self) -> None:
        """Stop to distribute changes."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def release(self) -> None:
        """End all feeds, because this process stops."""
        for feed in self._feeds:
            feed.release()

    @contextlib.contextmanager
    def subscribe(self, viewer: Viewer) -> Iterator[Feed]:
        """Register a feed. Register it before the first read, so that no change is lost in between."""
        feed = Feed(viewer, released=self._job_watcher.stopping)
        self._feeds.add(feed)
        try:
            yield feed
        finally:
            self._feeds.discard(feed)

    def _add_change(self, job_id: UUID) -> None:
        if self._feeds:
            self._changed.add(job_id)
            self._event.set()

    async def _distribute(self) -> None:
        while True:
            await self._event.wait()
            await asyncio.sleep(_BATCH_SECONDS)
            self._event.clear()
            changed, self._changed = list(self._changed), set()
            try:
                rows = await run_in_threadpool(_read_owners, changed)
            except DATABASE_ERRORS as error:
                # The sweeps of the feeds find these jobs later.
                log.warning("feed_lost", jobs=len(changed), reason=type(error).__name__)
                continue
            for row in rows:
                for feed in self._feeds:
                    feed.add_change(row.id, row.user_id, row.account_ids)


def _read_owners(job_ids: list[UUID]) -> list[Any]:
    with transaction() as tx:
        return jobs_feed.find_viewers(tx, job_ids)


def _read_changes(viewer: Viewer, since: float | None) -> ChangedJobs:
    with transaction() as tx:
        return jobs_feed.find_changed_jobs(tx, viewer, since=since, limit=_MAX_MISSED)


def _read_views(viewer: Viewer, ids: list[UUID]) -> tuple[list[JobView], list[UUID]]:
    """Return those of the jobs that the viewer may see, and the ids of those that were deleted."""
    if not ids:
        return [], []
    with transaction() as tx:
        views, _ = queries.list_jobs(tx, viewer, JobFilter(ids=ids), after=None, limit=len(ids), newest_first=False)
        missing = set(ids) - {view.job.id for view in views}
        deleted = jobs_feed.find_deleted(tx, viewer, sorted(missing)) if missing else []
    return views, deleted


@dataclass(frozen=True, slots=True)
class _SentState:
    """What a client was last sent about a job."""

    version: Version
    open: bool
    progress: int
    position: int | None


class _FeedSource:
    """The events of one feed. It remembers what the client was sent, so that nothing is sent twice."""

    def __init__(self, feed: Feed, find_viewer: Callable[[], Viewer], *, base: str, since: float | None) -> None:
        self._feed, self._find_viewer, self._base = feed, find_viewer, base
        self._sent: dict[UUID, _SentState] = {}  # open jobs, and jobs that changed recently
        self._sent_deleted: set[UUID] = set()  # jobs that were deleted recently
        self._since = since  # database time of the newest sweep
        self._changed: set[UUID] = set()
        self._started = False
        self._turn = 0  # of the jobs that are not among the newest
        self._swept_at = self._refreshed_at = 0.0

    async def new_frames(self) -> AsyncIterator[bytes]:
        """Yield the start of the feed on the first call, then frames for changed jobs and for sweeps that are due."""
        if not self._started:
            self._started = True
            yield b"retry: 500\n" + await self._first_frames()
            self._swept_at = self._refreshed_at = time.monotonic()
            return
        # Also while other jobs change all the time.
        if not self._changed or time.monotonic() - self._refreshed_at >= _REFRESH_SECONDS:
            self._refreshed_at = time.monotonic()
            self._changed = self._changed | self._jobs_to_refresh()
        async for frames in self._job_frames(self._changed):
            yield frames
        if time.monotonic() - self._swept_at > _SWEEP_SECONDS:
            self._swept_at = time.monotonic()
            sent = False
            async for frames in self._sweep():
                sent = True
                yield frames
            if not sent:
                yield HEARTBEAT

    def is_finished(self) -> bool:
        """Return False: a feed ends at its deadline."""
        return False

    def is_released(self) -> bool:
        """Return whether this process stops. Without it the server cuts the connection at the end of its patience."""
        return self._feed.released

    def release(self) -> bytes:
        """Return the last line of the feed: its client connects again with its `Last-Event-ID`."""
        return RESTARTING

    def expire(self) -> bytes:
        """Return nothing: the stream ends and the client reconnects."""
        return b""

    async def wait(self, seconds: float) -> object:
        """Wait for changed jobs, at most until the next refresh."""
        self._changed = await self._feed.wait_for_changes(min(seconds, _REFRESH_SECONDS))
        return self._changed

    async def _first_frames(self) -> bytes:
        """Return a snapshot of the open jobs, or what the client missed; `reset` when it missed too much."""
        since, viewer = self._since, self._feed.viewer
        found = await run_in_threadpool(_read_changes, viewer, None if since is None else since - _OVERLAP_SECONDS)
        self._since = found.now
        jobs = await self._changed_jobs(list(found.versions))
        if since is None:
            return self._frame("snapshot", {"object": "list", "data": jobs, "has_more": found.has_more})
        if found.has_more:
            return self._frame("reset", {})
        return b"".join([*(self._frame("job", job) for job in jobs), *self._deleted_frames(found.deleted)])

    async def _job_frames(self, job_ids: set[UUID]) -> AsyncIterator[bytes]:
        """Yield frames of those jobs that look different now or were deleted, newest first."""
        newest_first = sorted(job_ids, reverse=True)
        for start in range(0, len(newest_first), _MAX_JOBS_PER_FRAME):
            some = newest_first[start : start + _MAX_JOBS_PER_FRAME]
            views, deleted = await run_in_threadpool(_read_views, self._feed.viewer, some)
            frames = [self._frame("job", job) for view in views if (job := self._job_if_changed(view)) is not None]
            if frames := [*frames, *self._deleted_frames(deleted)]:
                yield b"".join(frames)

    def _deleted_frames(self, job_ids: list[UUID]) -> list[bytes]:
        """Return frames of deleted jobs, once each."""
        new = [job_id for job_id in job_ids if job_id not in self._sent_deleted]
        self._sent_deleted.update(new)
        bodies = [{"id": public_id("job", job_id), "object": "job.deleted", "deleted": True} for job_id in new]
        return [self._frame("deleted", body) for body in bodies]

    def _jobs_to_refresh(self) -> set[UUID]:
        """Return the open jobs whose progress or queue position is read again: the newest, and some of the others."""
        newest_first = sorted((job_id for job_id, state in self._sent.items() if state.open), reverse=True)
        others = newest_first[_MAX_REFRESHED_JOBS:]
        if self._turn >= len(others):
            self._turn = 0
        start, self._turn = self._turn, self._turn + _MAX_REFRESHED_JOBS
        return {*newest_first[:_MAX_REFRESHED_JOBS], *others[start : self._turn]}

    async def _sweep(self) -> AsyncIterator[bytes]:
        """Yield frames of jobs whose change was not reported."""
        viewer = await run_in_threadpool(self._find_viewer)
        self._feed.set_viewer(viewer)
        found = await run_in_threadpool(_read_changes, viewer, (self._since or 0.0) - _OVERLAP_SECONDS)
        self._sent = {job_id: state for job_id, state in self._sent.items() if job_id in found.versions}
        self._sent_deleted &= set(found.deleted)
        known = {job_id: state.version for job_id, state in self._sent.items()}
        missed = {job_id for job_id, version in found.versions.items() if known.get(job_id) != version}
        async for frames in self._job_frames(missed):
            yield frames
        if deleted := self._deleted_frames(found.deleted):
            yield b"".join(deleted)
        self._since = found.now

    async def _changed_jobs(self, ids: list[UUID]) -> list[dict[str, Any]]:
        views, _ = await run_in_threadpool(_read_views, self._feed.viewer, ids)
        return [job for view in views if (job := self._job_if_changed(view)) is not None]

    def _job_if_changed(self, view: JobView) -> dict[str, Any] | None:
        job = job_object(view, self._base)
        state = _SentState(
            version=(view.job.event_seq, view.job.edited_at),
            open=view.job.finished_at is None,
            progress=job["progress"],
            position=job["queue"]["position"],
        )
        if self._sent.get(view.job.id) == state:
            return None
        self._sent[view.job.id] = state
        return job

    def _frame(self, event: str, data: Any) -> bytes:
        return sse(event, data, f"{self._since or 0.0:.3f}")


async def feed_events(
    all_feeds: JobFeeds,
    find_viewer: Callable[[], Viewer],
    *,
    base: str,
    since: float | None,
    is_disconnected: Callable[[], Awaitable[bool]],
) -> AsyncIterator[bytes]:
    """Yield the frames of a feed until the client disconnects, at most for a few minutes."""
    with all_feeds.subscribe(await run_in_threadpool(find_viewer)) as feed:
        source = _FeedSource(feed, find_viewer, base=base, since=since)
        async for frame in stream_events(
            source,
            heartbeat_seconds=_HEARTBEAT_SECONDS,
            deadline_seconds=_DEADLINE_SECONDS,
            is_disconnected=is_disconnected,
        ):
            yield frame
