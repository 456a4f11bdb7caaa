"""Polls one account: one upstream call for all its open jobs, then one transaction for all normal news.

Protocol section 8.3 defines when a job is done. A submit whose response was lost is found by its key. Jobs with other
news (failures, cancellations, absences, incomplete results) are settled one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from worker.core.concurrency import continuations
from worker.core.concurrency.event_loop import in_thread, run_for
from worker.core.errors import DreameryError
from worker.core.job_state import JobState
from worker.core.observability import tracing
from worker.core.observability.faults import UnexpectedError
from worker.core.observability.job_context import job_context, jobs_context
from worker.core.observability.logging import get_logger
from worker.core.polling import OpenJob as JobInFlight
from worker.core.polling import PollingPolicy, duration_to_learn, next_poll
from worker.core.settings import get_settings
from worker.db.accounts import polling
from worker.db.accounts.accounts import AccountRow
from worker.db.accounts.polling import OpenJob, PollClaim
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, Transaction, retry_when_database_unavailable, transaction
from worker.db.jobs import durations, progress_and_leases, state_machine
from worker.messaging import celery_app, pubsub
from worker.providers.base import Record, RecordState
from worker.providers.registry import get_provider
from worker.tasks.stages.account_session import call_upstream_async
from worker.tasks.stages.fail_job import announce
from worker.tasks.stages.polling import settle_record
from worker.tasks.stages.polling.fetch_apart import fetch_apart, known_faults, note_fault
from worker.tasks.stages.polling.next_poll import poll_later
from worker.tasks.stages.polling.settle_record import ABSENT_SECONDS, STABLE_POLLS, STABLE_SECONDS

log = get_logger("poll")

__all__ = ["ABSENT_SECONDS", "STABLE_POLLS", "STABLE_SECONDS", "poll", "poll_account"]

# With more open jobs than fit into one call: if this share of them is done, the next call follows at once.
_CONTINUE_SHARE = 0.5
_OVER = frozenset({RecordState.DONE, RecordState.FAILED})


def poll(*, account_id: UUID) -> str:
    """Poll every open job of the account, if its poll is due. Return a summary."""
    return run_for(poll_account(account_id), otherwise="its call continues in the background")


async def poll_account(account_id: UUID) -> str:
    """Like `poll`, on the event loop."""
    try:
        claimed = await in_thread(_claim, account_id)
        if claimed is None:
            return "not due"
        if not claimed.jobs:
            return "nothing open"
        with jobs_context("poll", [job.origin for job in claimed.jobs]):
            return await _poll_claimed(claimed)
    except DATABASE_UNAVAILABLE_ERRORS:
        raise
    except BaseException as error:  # noqa: BLE001
        # Whatever happened, the account is polled again, each time a little later.
        fault = UnexpectedError(error)
        log.error("poll_failed", account_id=str(account_id), code=fault.code, detail=fault.detail, trace=fault.frames)  # noqa: TRY400
        await in_thread(_postpone, account_id)
        return f"poll failed: {fault.detail}"


@dataclass(slots=True)
class _Claimed:
    """A claimed poll with all open jobs of its account, and the durations of similar jobs."""

    claim: PollClaim
    jobs: list[OpenJob]
    durations: dict[UUID, tuple[float, ...] | None]

    @property
    def account(self) -> AccountRow:
        return self.claim.account

    def duration_of(self, job: OpenJob) -> float | None:
        """Return how long a job took whose end this poll has found."""
        return None if job.age is None else duration_to_learn(job.age, self.claim.since_last)

    def next_in(self, left: set[UUID]) -> float | None:
        """Return the seconds to the next poll, without the jobs that left the account; None without open jobs."""
        settings, claim = get_settings(), self.claim
        policy = PollingPolicy(
            floor=claim.floor or settings.poll_min_seconds,
            ceiling=claim.ceiling or settings.poll_max_seconds,
            eagerness=claim.eagerness or settings.poll_eagerness,
        )
        in_flight = [JobInFlight(job.age or 0.0, self.durations[job.id], job.kind) for job in self.jobs]
        kept = [one for job, one in zip(self.jobs, in_flight, strict=True) if job.id not in left]
        return next_poll(kept, policy)


@retry_when_database_unavailable
def _claim(account_id: UUID) -> _Claimed | None:
    with transaction() as tx:
        claim = polling.claim_poll(tx, account_id)
        if claim is None:
            return None
        jobs = polling.open_jobs(tx, account_id)
        if not jobs:
            polling.stop_polling(tx, account_id)
        return _Claimed(claim, jobs, {job.id: _known_durations(tx, job) for job in jobs})


def _known_durations(tx: Transaction, job: OpenJob) -> tuple[float, ...] | None:
    stats = durations.find_by_size(tx, job.kind, job.model, job.size)
    return stats.generation if stats else None


async def _fetch(account: AccountRow, jobs: list[OpenJob]) -> dict[str, Record]:
    keys = [str(job.submit_key) for job in jobs]
    return await call_upstream_async(account, lambda ready: get_provider(ready).fetch_records(ready, keys))


async def _poll_claimed(claimed: _Claimed) -> str:
    """Ask for the jobs that are most likely done; while most of them are, ask for the next ones at once."""
    account, rest, left = claimed.account, claimed.jobs, set[UUID]()
    known_faults.keep(account.id, {job.id for job in claimed.jobs})
    while rest:
        asked = polling.select_for_call(rest)
        try:
            answered, records = await fetch_apart(account, asked, _fetch)
        except DreameryError as error:
            # A failed poll does not affect the jobs upstream; only their deadline ends them.
            log.warning("poll_failed", account=account.label, code=error.code, detail=error.detail)
            await in_thread(_schedule_next, claimed, left)
            return f"poll of {account.label} failed: {error.code}"
        done = await in_thread(_settle_all, claimed, _sort(answered, records))
        left |= done
        if len(done) < _CONTINUE_SHARE * len(asked):
            break
        known = {job.id for job in asked}
        rest = [job for job in rest if job.id not in known]
    if left or known_faults.of(account.id) != {job.id for job in claimed.jobs}:
        known_faults.reset_pause(account.id)
        await in_thread(_schedule_next, claimed, left)
    else:
        await in_thread(_postpone, account.id)
    if left and not continuations.start("submit", account.id):
        celery_app.enqueue_submit(account_id=account.id)
    return f"polled {len(claimed.jobs)} jobs on {account.label}, {len(left)} left the account"


@dataclass(slots=True)
class _News:
    """The records that change rows: the normal ones, which are written together, and the others."""

    found: list[tuple[OpenJob, Record]] = field(default_factory=list)  # the response to their submit was lost
    finished: list[tuple[OpenJob, Record]] = field(default_factory=list)
    moved: list[tuple[OpenJob, Record]] = field(default_factory=list)  # progress, place in upstream's queue
    odd: list[tuple[OpenJob, Record | None]] = field(default_factory=list)

    @property
    def normal(self) -> list[tuple[OpenJob, Record]]:
        return [*self.found, *self.finished, *self.moved]


def _sort(jobs: list[OpenJob], records: dict[str, Record]) -> _News:
    news = _News()
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
        elif record.queue_position != job.queue_position or settle_record.progress(record) > job.progress:
            news.moved.append((job, record))
    return news


def _settle_all(claimed: _Claimed, news: _News) -> set[UUID]:
    """Write all news. Return the jobs that left their slots of the account."""
    left: set[UUID] = set()
    with pubsub.batch_job_changes():
        try:
            left |= _settle_normal(claimed, news)
        except DATABASE_UNAVAILABLE_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - each record meets its own error again, alone
            log.warning("batch_split", batch="poll", items=len(news.normal), reason=type(error).__name__)
            left |= _settle_normal_one_by_one(claimed, news)
        links = [trace] if (trace := tracing.traceparent()) else []
        for job, _ in news.normal if links else []:
            with job_context("settle", job.id, job.origin, links=links):
                pass  # the trace of the job shows when its news were written, together with those of others
        for job, record in news.odd:
            with job_context("settle", job.id, job.origin, links=links):
                if _settle_alone(
                    claimed,
                    job,
                    partial(settle_record.settle, claimed.account, job, record, seconds=claimed.duration_of(job)),
                ):
                    left.add(job.id)
    return left


def _settle_alone(claimed: _Claimed, job: OpenJob, settle: Callable[[], object]) -> bool:
    """Settle the news of one job. A fault in them leaves the job open, and the other jobs alone."""
    try:
        return bool(settle())
    except DATABASE_UNAVAILABLE_ERRORS:
        raise
    except Exception as error:  # noqa: BLE001
        note_fault(claimed.account, [job], UnexpectedError(error))
        return False


def _settle_normal_one_by_one(claimed: _Claimed, news: _News) -> set[UUID]:
    left: set[UUID] = set()
    singles = [_News(found=[pair]) for pair in news.found]
    singles += [_News(finished=[pair]) for pair in news.finished]
    singles += [_News(moved=[pair]) for pair in news.moved]
    for single in singles:
        job = single.normal[0][0]
        if _settle_alone(claimed, job, partial(_settle_normal, claimed, single)):
            left.add(job.id)
    return left


@retry_when_database_unavailable
def _settle_normal(claimed: _Claimed, news: _News) -> set[UUID]:
    if not news.normal:
        return set()
    finished = [*news.finished, *(pair for pair in news.found if pair[1].state is RecordState.DONE)]
    with transaction() as tx:
        accepted = [
            state_machine.Accepted(job.id, job.attempt, record.upstream_id, record.queue_position)
            for job, record in news.found
        ]
        for row in state_machine.mark_running_many(tx, accepted, actor="poll").values():
            log.info("submit_found", job_id=str(row.id))
            announce(tx, row)
        done = [
            state_machine.Finished(job.id, job.attempt, settle_record.refs(record), claimed.duration_of(job))
            for job, record in finished
        ]
        copies_here = continuations.handles("save_claimed")
        saving = state_machine.mark_saving_many(tx, done, claim=copies_here)
        for row in saving.values():
            announce(tx, row)
        for row in progress_and_leases.record_progress_many(tx, [settle_record.report(*pair) for pair in news.moved]):
            announce(tx, row)
        if copies_here and saving:
            tx.on_commit(partial(continuations.start, "save_claimed", list(saving.values()), promised=True))
        else:
            settle_record.enqueue_saves(tx, list(saving))
    return set(saving)


@retry_when_database_unavailable
def _schedule_next(claimed: _Claimed, left: set[UUID]) -> None:
    seconds = claimed.next_in(left)
    with transaction() as tx:
        if seconds is None:
            polling.stop_polling(tx, claimed.account.id)
            return
        polling.set_next_poll(tx, claimed.account.id, seconds=seconds)
        tx.on_commit(partial(poll_later, claimed.account.id, seconds))


@retry_when_database_unavailable
def _postpone(account_id: UUID) -> None:
    """Poll the account again after a pause that grows, because this poll could handle nothing."""
    with transaction() as tx:
        polling.postpone_poll(tx, account_id, seconds=known_faults.next_pause(account_id))
