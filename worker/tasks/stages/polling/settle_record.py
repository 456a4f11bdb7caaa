"""Settles news of single jobs: failures, cancellations, absences, incomplete results. Part of poll."""

from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from worker.core.job_state import UPSTREAM, JobState
from worker.core.observability.logging import get_logger
from worker.db.accounts import health
from worker.db.accounts.accounts import AccountRow
from worker.db.accounts.polling import OpenJob
from worker.db.column_values import finite
from worker.db.engine import Transaction, retry_when_database_unavailable, transaction
from worker.db.jobs import progress_and_leases, state_machine
from worker.messaging import celery_app
from worker.providers.base import Record, RecordState
from worker.providers.poll_rules import PollRules
from worker.providers.registry import poll_rules
from worker.tasks.stages import cooldowns
from worker.tasks.stages.fail_job import announce, fail_job
from worker.tasks.stages.polling import charges

log = get_logger("poll")

# Upstream may omit a job from its answers for a while; a job that is missing for this long is lost, unless the
# provider's rules say something else.
ABSENT_SECONDS = PollRules().absent_seconds
# Items that do not change for this many polls and seconds are complete.
STABLE_POLLS = 5
STABLE_SECONDS = 15.0
# Before the next attempt of a job that failed upstream for no reason of its own.
_REPEAT_SECONDS = (5.0, 20.0)
_OVER = frozenset({RecordState.DONE, RecordState.FAILED})


def progress(record: Record) -> int:
    """Return the percentage by finished items; the API adds the elapsed time when it shows the job."""
    share = 90 * len(record.results) // record.expected if record.expected else 0
    return 0 if record.state is RecordState.QUEUED else max(5, min(share, 90))


def enqueue_saves(tx: Transaction, job_ids: list[UUID]) -> None:
    """Send the messages for these saves after the commit."""
    most = celery_app.MOST_SAVES_PER_MESSAGE
    for start in range(0, len(job_ids), most):
        tx.on_commit(partial(celery_app.enqueue_save, *job_ids[start : start + most]))


def refs(record: Record) -> list[dict[str, Any]]:
    """Return the results as the row of the job stores them."""
    return [asdict(ref) | {"seconds": finite(ref.seconds)} for ref in record.results]


def report(job: OpenJob, record: Record) -> progress_and_leases.Progress:
    """Return the progress as it is written."""
    return progress_and_leases.Progress(
        job.id,
        job.attempt,
        queue_position=record.queue_position,
        forecast_seconds=record.forecast_seconds,
        ready_items=len(record.results),
        progress=progress(record),
    )


@retry_when_database_unavailable
def settle(account: AccountRow, job: OpenJob, record: Record | None, *, seconds: float | None) -> bool:
    """Apply one record to the rows. Return whether the job left its slot of the account.

    `seconds` = how long a job took whose end this poll has found.
    """
    with transaction() as tx:
        left = _settle(tx, account, job, record, seconds)
        charges.settle(tx, account.currency, [(job, record)])
        return left


def _settle(tx: Transaction, account: AccountRow, job: OpenJob, record: Record | None, seconds: float | None) -> bool:
    if job.state == JobState.CANCELLED:
        return _is_over(tx, account, job, record) and progress_and_leases.release_slot(tx, job.id)
    if record is None:
        return _settle_absent(tx, account, job)
    if job.state == JobState.SUBMITTING:
        row = state_machine.mark_running(
            tx, job_id=job.id, attempt=job.attempt, upstream_id=record.upstream_id, actor="poll"
        )
        if row is None:
            return False
        log.info("submit_found", job_id=str(job.id), account=account.label)
        announce(tx, row)
    return _settle_record(tx, account, job, record, seconds)


def _is_over(tx: Transaction, account: AccountRow, job: OpenJob, record: Record | None) -> bool:
    """Return whether upstream finished the job. A job missing for a moment still counts, to respect the slot limit."""
    if record is None:
        rules = poll_rules(account)
        return progress_and_leases.mark_absent(tx, job_id=job.id, attempt=job.attempt) >= rules.absent_seconds
    return record.state in _OVER


def _settle_absent(tx: Transaction, account: AccountRow, job: OpenJob) -> bool:
    if job.state == JobState.RUNNING:
        rules = poll_rules(account)
        if progress_and_leases.mark_absent(tx, job_id=job.id, attempt=job.attempt) < rules.absent_seconds:
            return False
        return _fail(tx, job, code=rules.absent_code, detail="absent from upstream's history")
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


def _settle_record(tx: Transaction, account: AccountRow, job: OpenJob, record: Record, seconds: float | None) -> bool:
    if job.cancel_requested:
        row = state_machine.mark_cancelled(tx, job_id=job.id, attempt=job.attempt)
        if row is None:
            return False
        announce(tx, row)
        # An upstream without a cancel call continues: the slot is free when the job has finished.
        return record.state in _OVER and progress_and_leases.release_slot(tx, job.id)
    if record.state is RecordState.FAILED and record.may_repeat and job.attempts_left:
        return _repeat(tx, account, job, record)
    if record.state is RecordState.FAILED:
        code = record.error_code or "generation_failed"
        # The job was accepted and may have been charged, so no other account repeats it. A failure that concerns the
        # account would also hit its next jobs, so it cools down. (Lock order: account before job, as in a claim.)
        if cooldown := cooldowns.cooldown_seconds(code, account, datetime.now(UTC)):
            health.cool_down(tx, account.id, seconds=cooldown, code=code)
        return _fail(tx, job, code=code, message=record.error_message, detail=record.detail)
    if record.state is RecordState.DONE or _is_stable(tx, job, record):
        return _finish(tx, job, record, seconds)
    for row in progress_and_leases.record_progress_many(tx, [report(job, record)]):
        announce(tx, row)
    return False


def _repeat(tx: Transaction, account: AccountRow, job: OpenJob, record: Record) -> bool:
    """Put back a job that failed for no reason of its own and was not charged."""
    row = state_machine.requeue(
        tx,
        job_id=job.id,
        attempt=job.attempt,
        actor="poll",
        reason=record.error_code or "generation_failed",
        code=record.error_code,
        detail=record.detail,
        account=account.label,
        delay=_REPEAT_SECONDS[min(job.attempt, len(_REPEAT_SECONDS)) - 1],
        from_state=JobState.RUNNING,
    )
    if row is None:
        return False
    announce(tx, row)
    return True


def _finish(tx: Transaction, job: OpenJob, record: Record, seconds: float | None) -> bool:
    if not record.results:
        return _fail(tx, job, code="generation_failed", detail="finished without a usable result")
    found = refs(record)
    row = state_machine.mark_saving(tx, job_id=job.id, attempt=job.attempt, refs=found, seconds=seconds)
    if row is None:
        return False
    announce(tx, row)
    enqueue_saves(tx, [row.id])
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
