"""Following one conversation: its words as they are said, and the jobs it starts, all on one bell.

Words come live through the hub; the row has what was missed. A follower holds no thread and no connection.
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from api.chat.agent_completion import is_over, says_no_more
from api.jobs.watcher import Hub, Watch
from worker.core.errors import DreameryError
from worker.core.observability.logging import get_logger
from worker.db.engine import AWAY_ERRORS, transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import JobView

log = get_logger("chat")


class Talk:
    """A conversation as its followers see it. `read` it once before anything else."""

    def __init__(self, hub: Hub, job_id: UUID) -> None:
        self.job_id = job_id
        self.views: list[JobView] = []
        self._hub = hub
        self._bell = asyncio.Event()
        self._watches: dict[UUID, Watch] = {}
        self._stack = ExitStack()

    @contextmanager
    def followed(self, *, words: bool) -> Iterator["Talk"]:
        """Hear what happens until the block ends, with every word or without."""
        with self._stack:
            self._watch(self.job_id, words=words)
            yield self

    def _watch(self, job_id: UUID, *, words: bool = False) -> None:
        watching = self._hub.watching([job_id], words=words, bell=self._bell)
        (self._watches[job_id],) = self._stack.enter_context(watching)

    @property
    def said(self) -> str:
        """What the agent has said so far."""
        return self._watches[self.job_id].said

    @property
    def view(self) -> JobView:
        """The conversation's own job, as last read."""
        return self.views[0]

    @property
    def children(self) -> list[JobView]:
        """The jobs it started, as last read."""
        return self.views[1:]

    @property
    def over(self) -> bool:
        """Whether the agent has said all and everything it started has ended."""
        return bool(self.views) and says_no_more(self.view) and all(is_over(child) for child in self.children)

    @property
    def stopping(self) -> bool:
        """Whether this process ends, so that nobody shall follow it here."""
        return self._hub.stopping

    @property
    def stale(self) -> bool:
        """Whether something has happened since the last reading, other than words."""
        read = {view.job.id: view.job.event_seq for view in self.views}
        return any(watch.seq > read.get(job_id, 0) for job_id, watch in self._watches.items())

    async def read(self) -> None:
        """Read the rows. While the database is away nothing changes: the jobs go on without it."""
        try:
            views = await run_in_threadpool(_views, self.job_id)
        except AWAY_ERRORS as error:
            log.warning("talk_waits_for_database", reason=type(error).__name__)
            return
        if not views:
            raise DreameryError("job_not_found", "The job was removed before it ended.")
        new = [view.job.id for view in views if view.job.id not in self._watches]
        for job_id in new:
            self._watch(job_id)
        if new:
            # What happened to them between the reading and the watching.
            views = await run_in_threadpool(_views, self.job_id)
        self.views = views
        for view in views:
            if (watch := self._watches.get(view.job.id)) is not None:
                watch.tell(view.job.state, view.job.event_seq)
        if self.view.spoken is not None:
            self._watches[self.job_id].read(self.view.spoken.said)

    async def wait(self, seconds: float) -> None:
        """Until something happens, or the time is over."""
        await self._watches[self.job_id].changed(seconds)


def _views(job_id: UUID) -> list[JobView]:
    with transaction() as tx:
        return queries.talk_views(tx, job_id)
