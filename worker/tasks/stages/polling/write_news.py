"""Sorts the news of a poll, and writes the normal ones of several polls together. Part of poll."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from worker.core.concurrency import continuations
from worker.core.job_state import JobState
from worker.core.observability.logging import get_logger
from worker.db.accounts import polling
from worker.db.accounts.polling import OpenJob
from worker.db.engine import Transaction, retry_when_database_unavailable, transaction
from worker.db.jobs import progress_and_leases, state_machine
from worker.db.scheduling import job_selection
from worker.messaging import pubsub
from worker.providers.base import Record, RecordState
from worker.tasks.stages.fail_job import announce
from worker.tasks.stages.polling import charges, settle_record
from worker.tasks.stages.polling.claimed_poll import ClaimedPoll
from worker.tasks.stages.polling.next_poll import poll_later

log = get_logger("poll")


@dataclass(slots=True)
class News:
    """The records that change rows: the normal ones, which are written together, and the others."""

    found: list[tuple[OpenJob, Record]] = field(default_factory=list)  # the response to their submit was lost
    finished: list[tuple[OpenJob, Record]] = field(default_factory=list)
    moved: list[tuple[OpenJob, Record]] = field(default_factory=list)  # progress, place in upstream's queue
    odd: list[tuple[OpenJob, Record | None]] = field(default_factory=list)

    @property
    def normal(self) -> list[tuple[OpenJob, Record]]:
        """The news that are written together."""
        return [*self.found, *self.finished, *self.moved]

    @property
    def ended(self) -> list[tuple[OpenJob, Record]]:
        """The normal news of jobs that upstream has finished."""
        return [*self.finished, *(pair for pair in self.found if pair[1].state is RecordState.DONE)]

    def one_by_one(self) -> "list[News]":
        """Return the normal news, each for itself."""
        singles = [News(found=[pair]) for pair in self.found]
        singles += [News(finished=[pair]) for pair in self.finished]
        return singles + [News(moved=[pair]) for pair in self.moved]


def sort_news(jobs: list[OpenJob], records: dict[str, Record]) -> News:
    """Sort the records of the jobs by what they change."""
    news = News()
    for job in jobs:
        record = records.get(str(job.submit_key))
        if (
            record is None
            or job.state == JobState.CANCELLED
            or job.cancel_requested
            or job.absent
            or record.state is RecordState.FAILED
            or (record.state is RecordState.DONE) != bool(record.results)
        ):
            news.odd.append((job, record))
        elif job.state == JobState.SUBMITTING:
            news.found.append((job, record))
        elif record.state is RecordState.DONE:
            news.finished.append((job, record))
        elif record.queue_position != job.queue_position or (
            # Before the first result, progress is only the time that passed: not worth a row.
            record.results and settle_record.progress(record) > job.progress
        ):
            news.moved.append((job, record))
    return news


@dataclass(frozen=True, slots=True)
class PollEnd:
    """The news of a poll after its last call."""

    poll: ClaimedPoll
    news: News


@dataclass(frozen=True, slots=True)
class PollOutcome:
    """The jobs that left their slots of the account, and whether any job may be waiting for these."""

    left: set[UUID]
    others_wait: bool = True


@retry_when_database_unavailable
def write_ends(ends: list[PollEnd]) -> list[PollOutcome]:
    """Write the normal news of these polls and end them, in one transaction. Return for each what came of it."""
    with pubsub.batch_job_changes(), transaction(plan_once=True) as tx:
        saving = _write(tx, [(end.poll, end.news) for end in ends])
        left = [{job.id for job, _ in end.news.ended} & saving for end in ends]
        next_in = {end.poll.account.id: end.poll.next_in(gone) for end, gone in zip(ends, left, strict=True)}
        polling.end_polls(tx, next_in)
        # After the lock of the accounts: a job that is accepted from now on is claimed by its own message, whose claim
        # waits for this transaction and finds the free slots.
        others_wait = any(left) and job_selection.is_any_queued(tx)
        for account_id, seconds in next_in.items():
            if seconds is not None:
                tx.on_commit(partial(poll_later, account_id, seconds))
    return [PollOutcome(gone, others_wait) for gone in left]


@retry_when_database_unavailable
def write_normal(poll: ClaimedPoll, news: News) -> set[UUID]:
    """Write the normal news of one poll. Return the jobs that left their slots of the account."""
    if not news.normal:
        return set()
    with transaction(plan_once=True) as tx:
        return _write(tx, [(poll, news)])


def _write(tx: Transaction, items: Sequence[tuple[ClaimedPoll, News]]) -> set[UUID]:
    """Write normal news, one statement for each kind. Return the jobs whose results are to be copied now."""
    accepted = [
        state_machine.Accepted(job.id, job.attempt, record.upstream_id, record.queue_position)
        for _, news in items
        for job, record in news.found
    ]
    for row in state_machine.mark_running_many(tx, accepted, actor="poll").values():
        log.info("submit_found", job_id=str(row.id))
        announce(tx, row)
    done = [
        state_machine.Finished(job.id, job.attempt, settle_record.refs(record), poll.duration_of(job))
        for poll, news in items
        for job, record in news.ended
    ]
    copies_here = continuations.handles("save_claimed")
    saving = state_machine.mark_saving_many(tx, done, claim=copies_here)
    for poll, news in items:
        charges.settle(tx, poll.account.currency, news.ended)
    for row in saving.values():
        announce(tx, row)
    moved = [settle_record.report(*pair) for _, news in items for pair in news.moved]
    for row in progress_and_leases.record_progress_many(tx, moved):
        announce(tx, row)
    if copies_here and saving:
        tx.on_commit(partial(continuations.start, "save_claimed", list(saving.values()), promised=True))
    else:
        settle_record.enqueue_saves(tx, list(saving))
    return set(saving)
