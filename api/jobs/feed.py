"""All jobs of a caller as one stream of server-sent events.

The hub hears of every change on this machine's one subscription; a few times a second one query tells whose the changed
jobs are. Each feed reads its own jobs again, sends what looks different, and now and then looks for what was lost on
the way. The `id` of an event is a time: what a client sends back as `Last-Event-ID` to get what it missed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from starlette.concurrency import run_in_threadpool

from api.jobs.serialization import job_object
from api.jobs.watcher import Hub
from worker.core.observability.logging import get_logger
from worker.db.engine import DATABASE_ERRORS, transaction
from worker.db.jobs import feed as jobs_feed
from worker.db.jobs import queries
from worker.db.jobs.feed import News
from worker.db.jobs.queries import JobFilter, JobView, Viewer

log = get_logger("job_feed")

# Changes are gathered for so long before anybody is asked whose they are.
_GATHER_SECONDS = 0.2
# Progress and places in the queue change without an event.
_REFRESH_SECONDS = 2.5
_REFRESHED_JOBS = 60
_SWEEP_SECONDS = 10.0
_OVERLAP_SECONDS = 5.0
_MOST_MISSED = 300
# Then the client comes again, and is asked again who it is.
_LONGEST_SECONDS = 300.0


class Feed:
    """One client's interest in all jobs that it may see."""

    __slots__ = ("_accounts", "_bell", "_changed", "viewer")

    def __init__(self, viewer: Viewer) -> None:
        self.see(viewer)
        self._changed: set[UUID] = set()
        self._bell = asyncio.Event()

    def see(self, viewer: Viewer) -> None:
        """Whose jobs these are. A session id that nobody used before gets its account only with its first job."""
        self.viewer = viewer
        self._accounts = frozenset(viewer.account_ids)

    def tell(self, job_id: UUID, user_id: UUID | None, account_ids: list[UUID]) -> None:
        """A job changed; noted if the viewer may see it (I9)."""
        own = user_id == self.viewer.user_id if user_id else not self._accounts.isdisjoint(account_ids)
        if own:
            self._changed.add(job_id)
            self._bell.set()

    async def changed(self, timeout_seconds: float) -> set[UUID]:
        """The jobs that changed; empty when none did in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._bell.wait()
        self._bell.clear()
        taken, self._changed = self._changed, set()
        return taken


class JobFeeds:
    """All feeds of this process."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._feeds: set[Feed] = set()
        self._changed: set[UUID] = set()
        self._bell = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin passing on what the hub hears."""
        self._hub.overhear(self._hear)
        self._task = asyncio.create_task(self._pass_on())

    async def stop(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @contextlib.contextmanager
    def open(self, viewer: Viewer) -> Iterator[Feed]:
        """A feed, registered before its first reading so that nothing falls in between."""
        feed = Feed(viewer)
        self._feeds.add(feed)
        try:
            yield feed
        finally:
            self._feeds.discard(feed)

    def _hear(self, job_id: UUID) -> None:
        if self._feeds:
            self._changed.add(job_id)
            self._bell.set()

    async def _pass_on(self) -> None:
        while True:
            await self._bell.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._bell.clear()
            taken, self._changed = list(self._changed), set()
            try:
                rows = await run_in_threadpool(_whose, taken)
            except DATABASE_ERRORS as error:
                # The feeds' own sweeps find these jobs later.
                log.warning("feed_lost", jobs=len(taken), reason=type(error).__name__)
                continue
            for row in rows:
                for feed in self._feeds:
                    feed.tell(row.id, row.user_id, row.account_ids)


def _whose(job_ids: list[UUID]) -> list[Any]:
    with transaction() as tx:
        return jobs_feed.whose(tx, job_ids)


def _news(viewer: Viewer, since: float | None) -> News:
    with transaction() as tx:
        return jobs_feed.news(tx, viewer, since=since, limit=_MOST_MISSED)


def _views(viewer: Viewer, ids: list[UUID]) -> list[JobView]:
    if not ids:
        return []
    with transaction() as tx:
        views, _ = queries.list_jobs(tx, viewer, JobFilter(ids=ids), after=None, limit=len(ids), newest_first=False)
    return views


@dataclass(frozen=True, slots=True)
class _Look:
    """What of a job a client has seen."""

    seq: int
    open: bool
    progress: int
    position: int | None


class _Story:
    """What one client was sent so far, so that nothing is sent twice."""

    def __init__(self, feed: Feed, base: str) -> None:
        self._feed = feed
        self._base = base
        self._shown: dict[UUID, _Look] = {}  # open jobs, and those that ended lately
        self.since = 0.0

    async def begin(self, since: float | None) -> bytes:
        """A snapshot of the open jobs, or what was missed since; `reset` when that is too much."""
        news = await run_in_threadpool(_news, self._feed.viewer, None if since is None else since - _OVERLAP_SECONDS)
        self.since = news.now
        jobs = await self._read(list(news.seqs))
        if since is None:
            return self._frame("snapshot", {"object": "list", "data": jobs, "has_more": news.more})
        if news.more:
            return self._frame("reset", {})
        return b"".join(self._frame("job", job) for job in jobs)

    async def tell(self, job_ids: set[UUID]) -> bytes:
        """Frames for those of the jobs that look different now."""
        return b"".join([self._frame("job", job) for job in await self._read(list(job_ids))])

    async def refresh(self) -> bytes:
        """Frames for open jobs whose progress or place in the queue is another now."""
        newest_first = sorted((job_id for job_id, look in self._shown.items() if look.open), reverse=True)
        return await self.tell(set(newest_first[:_REFRESHED_JOBS]))

    async def sweep(self, viewer: Viewer) -> bytes:
        """Frames for what nobody told us about."""
        self._feed.see(viewer)
        news = await run_in_threadpool(_news, self._feed.viewer, self.since - _OVERLAP_SECONDS)
        self._shown = {job_id: look for job_id, look in self._shown.items() if job_id in news.seqs}
        seqs = {job_id: look.seq for job_id, look in self._shown.items()}
        frames = await self.tell({job_id for job_id, seq in news.seqs.items() if seqs.get(job_id) != seq})
        self.since = news.now
        return frames

    async def _read(self, ids: list[UUID]) -> list[dict[str, Any]]:
        views = await run_in_threadpool(_views, self._feed.viewer, ids)
        return [job for view in views if (job := self._new(view)) is not None]

    def _new(self, view: JobView) -> dict[str, Any] | None:
        job = job_object(view, self._base)
        look = _Look(
            seq=view.job.event_seq,
            open=view.job.finished_at is None,
            progress=job["progress"],
            position=job["queue"]["position"],
        )
        if self._shown.get(view.job.id) == look:
            return None
        self._shown[view.job.id] = look
        return job

    def _frame(self, event: str, data: Any) -> bytes:
        return f"id: {self.since:.3f}\nevent: {event}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"


async def feed_events(
    all_feeds: JobFeeds, find_viewer: Callable[[], Viewer], *, base: str, since: float | None, gone: Callable[[], Any]
) -> AsyncIterator[bytes]:
    """The frames of a feed until the client is gone, or for a few minutes."""
    clock = asyncio.get_running_loop().time
    until = clock() + _LONGEST_SECONDS
    with all_feeds.open(await run_in_threadpool(find_viewer)) as feed:
        story = _Story(feed, base)
        yield b"retry: 500\n" + await story.begin(since)
        swept = clock()
        while clock() < until:
            changed = await feed.changed(_REFRESH_SECONDS)
            frames = await (story.tell(changed) if changed else story.refresh())
            if clock() - swept > _SWEEP_SECONDS:
                if await gone():
                    return
                swept = clock()
                frames += await story.sweep(await run_in_threadpool(find_viewer)) or b": ka\n"
            if frames:
                yield frames
