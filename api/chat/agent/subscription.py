"""Subscription to one conversation: its text as it is written, and the jobs it starts, with one event for all.

Text arrives live through the job watcher; the row has what was missed. A subscriber holds no thread and no database
connection.
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from api.chat.agent.completion import has_ended, is_text_complete
from api.jobs.watcher import JobWatcher, Watch
from worker.core.errors import DreameryError
from worker.core.observability.logging import get_logger
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import JobView

log = get_logger("chat")


class ConversationSubscription:
    """A conversation and the jobs it started, as last read. Call `refresh` once before reading any property."""

    def __init__(self, job_watcher: JobWatcher, job_id: UUID) -> None:
        self.job_id = job_id
        self.views: list[JobView] = []
        self._job_watcher = job_watcher
        self._event = asyncio.Event()
        self._watches: dict[UUID, Watch] = {}
        self._stack = ExitStack()

    @contextmanager
    def subscribe(self, *, with_text: bool) -> Iterator["ConversationSubscription"]:
        """Receive changes until the block ends, with or without the text."""
        with self._stack:
            self._watch(self.job_id, with_text=with_text)
            yield self

    def _watch(self, job_id: UUID, *, with_text: bool = False) -> None:
        watch_jobs = self._job_watcher.watch_jobs([job_id], with_text=with_text, event=self._event)
        (self._watches[job_id],) = self._stack.enter_context(watch_jobs)

    @property
    def text(self) -> str:
        """The agent's text so far."""
        return self._watches[self.job_id].text

    @property
    def view(self) -> JobView:
        """The job of the conversation."""
        return self.views[0]

    @property
    def children(self) -> list[JobView]:
        """The jobs that the agent started."""
        return self.views[1:]

    @property
    def finished(self) -> bool:
        """Whether the text is complete and all jobs that the agent started have ended."""
        return bool(self.views) and is_text_complete(self.view) and all(has_ended(child) for child in self.children)

    @property
    def stopping(self) -> bool:
        """Whether this process stops, so that subscribers must leave."""
        return self._job_watcher.stopping

    @property
    def has_unread_changes(self) -> bool:
        """Whether a job changed since the last read; new text does not count."""
        read = {view.job.id: view.job.event_seq for view in self.views}
        return any(watch.seq > read.get(job_id, 0) for job_id, watch in self._watches.items())

    async def refresh(self) -> None:
        """Read the rows. While the database is unavailable the last known rows stay; the jobs continue.

        Raises `job_not_found`.
        """
        try:
            views = await run_in_threadpool(_read_views, self.job_id)
        except DATABASE_UNAVAILABLE_ERRORS as error:
            log.warning("talk_waits_for_database", reason=type(error).__name__)
            return
        if not views:
            raise DreameryError("job_not_found", "The job was removed before it ended.")
        new = [view.job.id for view in views if view.job.id not in self._watches]
        for job_id in new:
            self._watch(job_id)
        if new:
            # They may have changed after the read and before the watch.
            views = await run_in_threadpool(_read_views, self.job_id)
        self.views = views
        for view in views:
            if (watch := self._watches.get(view.job.id)) is not None:
                watch.update(view.job.state, view.job.event_seq)
        if self.view.reply is not None:
            self._watches[self.job_id].replace_text(self.view.reply.text)

    async def wait(self, seconds: float) -> None:
        """Wait for a change, at most `seconds`."""
        await self._watches[self.job_id].changed(seconds)


def _read_views(job_id: UUID) -> list[JobView]:
    with transaction() as tx:
        return queries.conversation_views(tx, job_id)
