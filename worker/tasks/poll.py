"""Polls one account: one upstream call for all its open jobs, then one transaction for all normal news.

Protocol section 8.3 defines when a job is done. A submit whose response was lost is found by its key. Jobs with other
news (failures, cancellations, absences, incomplete results) are settled one by one.
"""

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from worker.core.concurrency import continuations
from worker.core.concurrency.event_loop import in_thread, run_for
from worker.core.errors import DreameryError
from worker.core.job_state import UPSTREAM, JobState
from worker.core.observability import tracing
from worker.core.observability.job_context import job_context, jobs_context
from worker.core.observability.logging import get_logger
from worker.core.polling import OpenJob as JobInFlight
from worker.core.polling import PollingPolicy, duration_to_learn, next_poll
from worker.core.settings import get_settings
from worker.db.accounts import health, polling
from worker.db.accounts.accounts import AccountRow
from worker.db.accounts.polling import OpenJob, PollClaim
from worker.db.engine import ROW_ERRORS, Transaction, retry_when_database_unavailable, transaction
from worker.db.jobs import durations, progress_and_leases, state_machine
from worker.messaging import celery_app, pubsub
from worker.providers.base import Record, RecordState
from worker.providers.registry import get_provider
from worker.tasks.stages import cooldowns
from worker.tasks.stages.account_session import call_upstream_async
from worker.tasks.stages.fail_job import announce, fail_job
from worker.tasks.stages.next_poll import poll_later

log = get_logger("poll")

# Upstream may omit a job from its answers for a while; a job that is missing for this long is lost.
ABSENT_SECONDS = 300.0
# Items that do not change for this many polls and seconds are complete (protocol section 8.3).
STABLE_POLLS = 5
STABLE_SECONDS = 15.0
# With more open jobs than fit into one call: if this share of them is done, the next call follows at once.
_CONTINUE_SHARE = 0.5
_OVER = frozenset({RecordState.DONE, RecordState.FAILED})


def poll(*, account_id: UUID) -> str:
    """Poll every open job of the account, if its poll is due. Return a summary."""
    return run_for(poll_account(account_id), otherwise="its call continues in the background")


async def poll_account(account_id: UUID) -> str:
    """Like `poll`, on the event loop."""
    claimed = await in_thread(_claim, account_id)
    if claimed is None:
        return "not due"
    if not claimed.jobs:
        return "nothing open"
    with jobs_context("poll", [job.origin for job in claimed.jobs]):
        return await _poll_claimed(claimed)


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


async def _poll_claimed(claimed: _Claimed) -> str:
    """Ask for the jobs that are most likely done; while most of them are, ask for the next ones at once."""
    account, rest, left = claimed.account, claimed.jobs, set[UUID]()
    while rest:
        asked = polling.select_for_call(rest)
        try:
            records = await _fetch(account, asked)
        except DreameryError as error:
            # A failed poll does not affect the jobs upstream; only their deadline ends them.
            log.warning("poll_failed", account=account.label, code=error.code, detail=error.detail)
            await in_thread(_schedule_next, claimed, left)
            return f"poll of {account.label} failed: {error.code}"
        done = await in_thread(_settle_all, claimed, _sort(asked, records))
        left |= done
        if len(done) < _CONTINUE_SHARE * len(asked):
            break
        known = {job.id for job in asked}
        rest = [job for job in rest if job.id not in known]
    await in_thread(_schedule_next, claimed, left)
    if left and not continuations.start("submit", account.id):
        celery_app.enqueue_submit(account_id=account.id)
    return f"polled {len(claimed.jobs)} jobs on {account.label}, {len(left)} left the account"


async def _fetch(account: AccountRow, jobs: list[OpenJob]) -> dict[str, Record]:
    keys = [str(job.submit_key) for job in jobs]
    return await call_upstream_async(account, lambda ready: get_provider().fetch_records(ready, keys))


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
        elif record.queue_position != job.queue_position or _progress(record) > job.progress:
            news.moved.append((job, record))
    return news


def _progress(record: Record) -> int:
    """Return the percentage by finished items; the API adds the elapsed time when it shows the job."""
    share = 90 * len(record.results) // record.expected if record.expected else 0
    return 0 if record.state is RecordState.QUEUED else max(5, min(share, 90))


def _settle_all(claimed: _Claimed, news: _News) -> set[UUID]:
    """Write all news. Return the jobs that left their slots of the account."""
    left: set[UUID] = set()
    with pubsub.batch_job_changes():
        try:
            left |= _settle_normal(claimed, news)
        except ROW_ERRORS as error:
            log.warning("batch_split", batch="poll", items=len(news.normal), reason=type(error).__name__)
            left |= _settle_normal_one_by_one(claimed, news)
        links = [trace] if (trace := tracing.traceparent()) else []
        for job, _ in news.normal if links else []:
            with job_context("settle", job.id, job.origin, links=links):
                pass  # the trace of the job shows when its news were written, together with those of others
        for job, record in news.odd:
            with job_context("settle", job.id, job.origin, links=links):
                if _settle(claimed, job, record):
                    left.add(job.id)
    return left


def _settle_normal_one_by_one(claimed: _Claimed, news: _News) -> set[UUID]:
    left: set[UUID] = set()
    singles = [_News(found=[pair]) for pair in news.found]
    singles += [_News(finished=[pair]) for pair in news.finished]
    singles += [_News(moved=[pair]) for pair in news.moved]
    for single in singles:
        try:
            left |= _settle_normal(claimed, single)
        except ROW_ERRORS:
            log.exception("record_not_settled", job_id=str(single.normal[0][0].id))
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
            state_machine.Finished(job.id, job.attempt, _refs(record), claimed.duration_of(job))
            for job, record in finished
        ]
        copies_here = continuations.handles("save_claimed")
        saving = state_machine.mark_saving_many(tx, done, claim=copies_here)
        for row in saving.values():
            announce(tx, row)
        for row in progress_and_leases.record_progress_many(tx, [_report(*pair) for pair in news.moved]):
            announce(tx, row)
        if copies_here and saving:
            tx.on_commit(partial(continuations.start, "save_claimed", list(saving.values()), promised=True))
        else:
            _enqueue_saves(tx, list(saving))
    return set(saving)


def _enqueue_saves(tx: Transaction, job_ids: list[UUID]) -> None:
    most = celery_app.MOST_SAVES_PER_MESSAGE
    for start in range(0, len(job_ids), most):
        tx.on_commit(partial(celery_app.enqueue_save, *job_ids[start : start + most]))


def _refs(record: Record) -> list[dict[str, Any]]:
    return [asdict(ref) for ref in record.results]


def _report(job: OpenJob, record: Record) -> progress_and_leases.Progress:
    return progress_and_leases.Progress(
        job.id,
        job.attempt,
        queue_position=record.queue_position,
        forecast_seconds=record.forecast_seconds,
        ready_items=len(record.results),
        progress=_progress(record),
    )


@retry_when_database_unavailable
def _schedule_next(claimed: _Claimed, left: set[UUID]) -> None:
    seconds = claimed.next_in(left)
    with transaction() as tx:
        if seconds is None:
            polling.stop_polling(tx, claimed.account.id)
            return
        polling.set_next_poll(tx, claimed.account.id, seconds=seconds)
        tx.on_commit(partial(poll_later, claimed.account.id, seconds))


# --- news that are settled one by one ---


@retry_when_database_unavailable
def _settle(claimed: _Claimed, job: OpenJob, record: Record | None) -> bool:
    """Apply one record to the rows. Return whether the job left its slot of the account."""
    with transaction() as tx:
        if job.state == JobState.CANCELLED:
            return _is_over(tx, job, record) and progress_and_leases.release_slot(tx, job.id)
        if record is None:
            return _settle_absent(tx, job)
        if job.state == JobState.SUBMITTING:
            row = state_machine.mark_running(
                tx, job_id=job.id, attempt=job.attempt, upstream_id=record.upstream_id, actor="poll"
            )
            if row is None:
                return False
            log.info("submit_found", job_id=str(job.id), account=claimed.account.label)
            announce(tx, row)
        return _settle_record(tx, claimed, job, record)


def _is_over(tx: Transaction, job: OpenJob, record: Record | None) -> bool:
    """Return whether upstream finished the job. A job missing for a moment still counts, to respect the slot limit."""
    if record is None:
        return progress_and_leases.mark_absent(tx, job_id=job.id, attempt=job.attempt) >= ABSENT_SECONDS
    return record.state in _OVER


def _settle_absent(tx: Transaction, job: OpenJob) -> bool:
    if job.state == JobState.RUNNING:
        if progress_and_leases.mark_absent(tx, job_id=job.id, attempt=job.attempt) < ABSENT_SECONDS:
            return False
        return _fail(tx, job, code="history_unavailable", detail="absent from upstream's history")
    if not job.overdue_unclear:
        return False
    if not job.attempts_left:
        return _fail(tx, job, code="upstream_unreachable", detail="no submit arrived upstream")
    row = state_machine.requeue(
        tx,
        job_id=job.id,
        attempt=job.attempt,
        actor="poll",
        reason="upstream does not know this submit",
        delay=0.0,
        counts=True,
    )
    if row is None:
        return False
    announce(tx, row)
    return True


def _settle_record(tx: Transaction, claimed: _Claimed, job: OpenJob, record: Record) -> bool:
    account = claimed.account
    if job.cancel_requested:
        row = state_machine.mark_cancelled(tx, job_id=job.id, attempt=job.attempt)
        if row is None:
            return False
        announce(tx, row)
        # Upstream has no cancel call: the slot is free when the job has finished.
        return record.state in _OVER and progress_and_leases.release_slot(tx, job.id)
    if record.state is RecordState.FAILED:
        code = record.error_code or "generation_failed"
        # The job was accepted and may have been charged, so no other account repeats it. A failure that concerns the
        # account would also hit its next jobs, so it cools down. (Lock order: account before job, as in a claim.)
        if cooldown := cooldowns.cooldown_seconds(code, account.region, datetime.now(UTC)):
            health.cool_down(tx, account.id, seconds=cooldown, code=code)
        return _fail(tx, job, code=code, message=record.error_message, detail=record.detail)
    if record.state is RecordState.DONE or _is_stable(tx, job, record):
        return _finish(tx, claimed, job, record)
    for row in progress_and_leases.record_progress_many(tx, [_report(job, record)]):
        announce(tx, row)
    return False


def _finish(tx: Transaction, claimed: _Claimed, job: OpenJob, record: Record) -> bool:
    if not record.results:
        return _fail(tx, job, code="generation_failed", detail="finished without a usable result")
    refs = _refs(record)
    row = state_machine.mark_saving(tx, job_id=job.id, attempt=job.attempt, refs=refs, seconds=claimed.duration_of(job))
    if row is None:
        return False
    announce(tx, row)
    _enqueue_saves(tx, [row.id])
    return True


def _fail(tx: Transaction, job: OpenJob, *, code: str, message: str | None = None, detail: str | None = None) -> bool:
    row = fail_job(
        tx,
        job_id=job.id,
        attempt=job.attempt,
        code=code,
        message=message,
        actor="poll",
        detail=detail,
        from_states=UPSTREAM,
    )
    return row is not None


def _is_stable(tx: Transaction, job: OpenJob, record: Record) -> bool:
    """Return whether the items, which may be incomplete, have not changed for long enough to count as all."""
    if not record.results or len(record.results) != job.ready_items:
        return False
    row = progress_and_leases.count_stable_poll(tx, job_id=job.id, attempt=job.attempt)
    return row is not None and row.stable_polls >= STABLE_POLLS and float(row.stable_seconds) >= STABLE_SECONDS
