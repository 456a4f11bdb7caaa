"""Polls one account: one upstream call for all its open jobs, then one small transaction per job.

Protocol section 8.3 defines when a job is done. A submit whose response was lost is found by its key.
"""

import random
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from worker.core.errors import DreameryError
from worker.core.job_state import UPSTREAM, JobState
from worker.core.observability import tracing
from worker.core.observability.job_context import job_context, jobs_context
from worker.core.observability.logging import get_logger
from worker.core.watchdog import watchdog
from worker.db.accounts import accounts, health
from worker.db.accounts.accounts import AccountRow, OpenJob
from worker.db.engine import Transaction, retry_when_database_unavailable, transaction
from worker.db.jobs import progress_and_leases, state_machine
from worker.messaging import celery_app, pubsub
from worker.providers.base import Record, RecordState
from worker.providers.registry import get_provider
from worker.tasks.stages import cooldowns
from worker.tasks.stages.account_session import call_upstream
from worker.tasks.stages.fail_job import announce, fail_job

log = get_logger("poll")

# Upstream may omit a job from its answers for a while; a job that is missing for this long is lost.
ABSENT_SECONDS = 300.0
# Items that do not change for this many polls and seconds are complete (protocol section 8.3).
STABLE_POLLS = 5
STABLE_SECONDS = 15.0
# Jobs that finish together are spread over about this many messages, so that they are saved in parallel.
_SAVE_MESSAGES = 8


def poll(*, account_id: UUID) -> str:
    """Poll every open job of the account, if its poll is due. Return a summary."""
    open_jobs, row = _claim(account_id)
    if row is None:
        return "not due"
    if not open_jobs:
        return "nothing open"
    with jobs_context("poll", [job.origin for job in open_jobs]):
        return _poll_claimed(row, open_jobs)


def _poll_claimed(row: AccountRow, open_jobs: list[OpenJob]) -> str:
    try:
        keys = [str(job.submit_key) for job in open_jobs]
        records = call_upstream(row, lambda account: get_provider().fetch_records(account, keys))
    except DreameryError as error:
        # A failed poll does not affect the jobs upstream; only their deadline ends them.
        log.warning("poll_failed", account=row.label, code=error.code, detail=error.detail)
        return f"poll of {row.label} failed: {error.code}"
    freed = _settle_all(row, open_jobs, records)
    # Each message takes several jobs, so a few suffice however many slots are free.
    for _ in range(min(freed, 4)):
        celery_app.enqueue_submit(account_id=row.id)
    return f"polled {len(open_jobs)} jobs on {row.label}, {freed} left the account"


@retry_when_database_unavailable
def _claim(account_id: UUID) -> tuple[list[OpenJob], AccountRow | None]:
    with transaction() as tx:
        # Jitter keeps accounts from polling in step.
        next_in = accounts.claim_poll(tx, account_id, jitter=random.uniform(0.9, 1.1))  # noqa: S311
        if next_in is None:
            return [], None
        open_jobs = accounts.open_jobs(tx, account_id)
        if open_jobs:
            tx.on_commit(partial(celery_app.enqueue_poll_later, account_id, seconds=next_in))
        else:
            accounts.stop_polling(tx, account_id)
        return open_jobs, accounts.get_account(tx, account_id)


def _settle_all(account: AccountRow, open_jobs: list[OpenJob], records: dict[str, Record]) -> int:
    """Apply every record with news to the rows, finished jobs first. Return how many jobs left the account."""
    news = [(job, records.get(str(job.submit_key))) for job in open_jobs]
    news = [(job, record) for job, record in news if _is_news(job, record)]
    news.sort(key=lambda pair: not _is_done(pair[1]))
    done = sum(_is_done(record) for _, record in news)
    per_message = min(max(done // _SAVE_MESSAGES, 1), celery_app.MOST_SAVES_PER_MESSAGE)
    freed = 0
    finished: list[UUID] = []
    poll_trace = tracing.traceparent()
    with pubsub.batch_job_changes():
        for job, record in news:
            watchdog.renew()
            with job_context("settle", job.id, job.origin, links=[poll_trace] if poll_trace else []):
                freed += _settle(account, job, record, finished)
            if len(finished) >= per_message:
                celery_app.enqueue_save(*finished)
                finished.clear()
    if finished:
        celery_app.enqueue_save(*finished)
    return freed


def _is_done(record: Record | None) -> bool:
    return record is not None and record.state is RecordState.DONE


def _is_news(job: OpenJob, record: Record | None) -> bool:
    """Return whether a record may change the row. Most records do not, and then no transaction is opened."""
    if job.state != JobState.RUNNING or job.cancel_requested or job.absent or record is None:
        return True
    if record.state in {RecordState.DONE, RecordState.FAILED} or record.results:
        return True
    return record.queue_position != job.queue_position or _progress(record) > job.progress


def _progress(record: Record) -> int:
    """Return the percentage by finished items; the API adds the elapsed time when it shows the job."""
    share = 90 * len(record.results) // record.expected if record.expected else 0
    return 0 if record.state is RecordState.QUEUED else max(5, min(share, 90))


@retry_when_database_unavailable
def _settle(account: AccountRow, job: OpenJob, record: Record | None, finished: list[UUID]) -> int:
    """Apply one record to the rows. Return 1 if the job left its slot of the account, else 0."""
    with transaction() as tx:
        if job.state == JobState.CANCELLED:
            return int(_is_over(tx, job, record) and progress_and_leases.release_slot(tx, job.id))
        if record is None:
            return _settle_absent(tx, job)
        if job.state == JobState.SUBMITTING:
            row = state_machine.mark_running(
                tx, job_id=job.id, attempt=job.attempt, upstream_id=record.upstream_id, actor="poll"
            )
            if row is None:
                return 0
            log.info("submit_found", job_id=str(job.id), account=account.label)
            announce(tx, row)
        return _settle_record(tx, account, job, record, finished)


def _is_over(tx: Transaction, job: OpenJob, record: Record | None) -> bool:
    """Return whether upstream finished the job. A job missing for a moment still counts, to respect the slot limit."""
    if record is None:
        return progress_and_leases.mark_absent(tx, job_id=job.id, attempt=job.attempt) >= ABSENT_SECONDS
    return record.state in {RecordState.DONE, RecordState.FAILED}


def _settle_absent(tx: Transaction, job: OpenJob) -> int:
    if job.state == JobState.RUNNING:
        if progress_and_leases.mark_absent(tx, job_id=job.id, attempt=job.attempt) < ABSENT_SECONDS:
            return 0
        return _fail(tx, job, code="history_unavailable", detail="absent from upstream's history")
    if not job.overdue_unclear:
        return 0
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
        return 0
    announce(tx, row)
    return 1


def _settle_record(tx: Transaction, account: AccountRow, job: OpenJob, record: Record, finished: list[UUID]) -> int:
    if job.cancel_requested:
        row = state_machine.mark_cancelled(tx, job_id=job.id, attempt=job.attempt)
        if row is not None:
            announce(tx, row)
            # Upstream has no cancel call: the slot is free when the job has finished.
            if record.state in {RecordState.DONE, RecordState.FAILED}:
                return int(progress_and_leases.release_slot(tx, job.id))
        return 0
    if record.state is RecordState.FAILED:
        code = record.error_code or "generation_failed"
        # The job was accepted and may have been charged, so no other account repeats it. A failure that concerns the
        # account would also hit its next jobs, so it cools down. (Lock order: account before job, as in a claim.)
        if cooldown := cooldowns.cooldown_seconds(code, account.region, datetime.now(UTC)):
            health.cool_down(tx, account.id, seconds=cooldown, code=code)
        return _fail(tx, job, code=code, message=record.error_message, detail=record.detail)
    if record.state is RecordState.DONE or _is_stable(tx, job, record):
        return _finish(tx, job, record, finished)
    _note_progress(tx, job, record)
    return 0


def _finish(tx: Transaction, job: OpenJob, record: Record, finished: list[UUID]) -> int:
    if not record.results:
        return _fail(tx, job, code="generation_failed", detail="finished without a usable result")
    row = state_machine.mark_saving(
        tx, job_id=job.id, attempt=job.attempt, refs=[asdict(ref) for ref in record.results]
    )
    if row is None:
        return 0
    announce(tx, row)
    tx.on_commit(partial(finished.append, row.id))
    return 1


def _fail(tx: Transaction, job: OpenJob, *, code: str, message: str | None = None, detail: str | None = None) -> int:
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
    return int(row is not None)


def _is_stable(tx: Transaction, job: OpenJob, record: Record) -> bool:
    """Return whether the items, which may be incomplete, have not changed for long enough to count as all."""
    if not record.results or len(record.results) != job.ready_items:
        return False
    row = progress_and_leases.count_stable_poll(tx, job_id=job.id, attempt=job.attempt)
    return row is not None and row.stable_polls >= STABLE_POLLS and float(row.stable_seconds) >= STABLE_SECONDS


def _note_progress(tx: Transaction, job: OpenJob, record: Record) -> None:
    row = progress_and_leases.record_progress(
        tx,
        job_id=job.id,
        attempt=job.attempt,
        queue_position=record.queue_position,
        forecast_seconds=record.forecast_seconds,
        ready_items=len(record.results),
        progress=_progress(record),
    )
    if row is not None:
        announce(tx, row)
