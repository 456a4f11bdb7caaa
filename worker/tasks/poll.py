"""Poll one account: one upstream call for all its open jobs, then one small transaction per job.

Decides by protocol section 8.3 when a job is done; finds submits whose answer was lost by their key.
"""

import random
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from worker.core.errors import ERRORS, DreameryError
from worker.core.observability import tracing
from worker.core.observability.job_context import about_job, about_jobs
from worker.core.observability.logging import get_logger
from worker.core.watchdog import watchdog
from worker.db.accounts import accounts, health
from worker.db.accounts.accounts import AccountRow, OpenJob
from worker.db.engine import Transaction, retry_when_database_away, transaction
from worker.db.jobs import progress_and_leases, state_machine
from worker.messaging import celery_app, pubsub
from worker.providers.base import Record, RecordState
from worker.providers.registry import get_provider
from worker.tasks.stages import cooldowns
from worker.tasks.stages.account_session import asked

log = get_logger("poll")

# Upstream may forget to list a job for a while; one that stays away this long is gone.
ABSENT_SECONDS = 300.0
# Items that stay as they are for this many polls and seconds are all there will be (protocol section 8.3).
STABLE_POLLS = 5
STABLE_SECONDS = 15.0
# Jobs that finish together get about so many messages, so that they are saved side by side.
_SAVE_MESSAGES = 8


def poll(*, account_id: UUID) -> str:
    """Ask upstream for every open job of the account, if its poll is due."""
    open_jobs, row = _claim(account_id)
    if row is None:
        return "not due"
    if not open_jobs:
        return "nothing open"
    with about_jobs("poll", [job.origin for job in open_jobs]):
        return _poll_claimed(row, open_jobs)


def _poll_claimed(row: AccountRow, open_jobs: list[OpenJob]) -> str:
    try:
        keys = [str(job.submit_key) for job in open_jobs]
        records = asked(row, lambda account: get_provider().ask(account, keys))
    except DreameryError as error:
        # The jobs go on upstream whatever happens to a poll; only their deadline ends them.
        log.warning("poll_failed", account=row.label, code=error.code, detail=error.detail)
        return f"poll of {row.label} failed: {error.code}"
    freed = _settle_all(row, open_jobs, records)
    # Each message takes several jobs, so a few suffice however many slots are free.
    for _ in range(min(freed, 4)):
        celery_app.nudge_submit(account_id=row.id)
    return f"asked for {len(open_jobs)} on {row.label}, {freed} left the account"


@retry_when_database_away
def _claim(account_id: UUID) -> tuple[list[OpenJob], AccountRow | None]:
    with transaction() as tx:
        # A little unevenness keeps accounts from marching in step.
        next_in = accounts.claim_poll(tx, account_id, jitter=random.uniform(0.9, 1.1))  # noqa: S311
        if next_in is None:
            return [], None
        found = accounts.open_jobs(tx, account_id)
        if found:
            tx.on_commit(partial(celery_app.nudge_poll_later, account_id, seconds=next_in))
        else:
            accounts.stop_polling(tx, account_id)
        return found, accounts.get_account(tx, account_id)


def _settle_all(account: AccountRow, open_jobs: list[OpenJob], records: dict[str, Record]) -> int:
    """Carry every answer that tells something new into the rows, finished jobs first; how many left the account."""
    news = [(job, records.get(str(job.submit_key))) for job in open_jobs]
    news = [(job, record) for job, record in news if _is_news(job, record)]
    news.sort(key=lambda pair: not _is_done(pair[1]))
    done = sum(_is_done(record) for _, record in news)
    per_message = min(max(done // _SAVE_MESSAGES, 1), celery_app.MOST_SAVES_PER_MESSAGE)
    freed = 0
    finished: list[UUID] = []
    asked_in = tracing.traceparent()
    with pubsub.gathered():
        for job, record in news:
            watchdog.renew()
            with about_job("settle", job.id, job.origin, links=[asked_in] if asked_in else []):
                freed += _settle(account, job, record, finished)
            if len(finished) >= per_message:
                celery_app.nudge_save(*finished)
                finished.clear()
    if finished:
        celery_app.nudge_save(*finished)
    return freed


def _is_done(record: Record | None) -> bool:
    return record is not None and record.state is RecordState.DONE


def _is_news(job: OpenJob, record: Record | None) -> bool:
    """Whether an answer may change a row. Most answers of most polls do not, and then no transaction is opened."""
    if job.state != "running" or job.cancel_requested or job.absent or record is None:
        return True
    if record.state in {RecordState.DONE, RecordState.FAILED} or record.results:
        return True
    return record.queue_position != job.queue_position or _progress(record) > job.progress


def _progress(record: Record) -> int:
    """Percent by finished items; the time that has passed is added where a job is shown."""
    share = 90 * len(record.results) // record.wanted if record.wanted else 0
    return 0 if record.state is RecordState.QUEUED else max(5, min(share, 90))


@retry_when_database_away
def _settle(account: AccountRow, job: OpenJob, record: Record | None, finished: list[UUID]) -> int:
    """Carry one answer into the rows; 1 when the job has left the account's slots, else 0."""
    with transaction() as tx:
        if job.state == "cancelled":
            return int(_is_over(tx, job, record) and progress_and_leases.release_slot(tx, job.id))
        if record is None:
            return _settle_absent(tx, job)
        if job.state == "submitting":
            row = state_machine.mark_running(
                tx, job_id=job.id, attempt=job.attempt, upstream_id=record.upstream_id, actor="poll"
            )
            if row is None:
                return 0
            log.info("submit_found", job_id=str(job.id), account=account.label)
            tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
        return _settle_record(tx, account, job, record, finished)


def _is_over(tx: Transaction, job: OpenJob, record: Record | None) -> bool:
    """Whether upstream draws no longer; forgotten for a moment is not over, or the account would exceed its slots."""
    if record is None:
        return progress_and_leases.note_absent(tx, job_id=job.id, attempt=job.attempt) >= ABSENT_SECONDS
    return record.state in {RecordState.DONE, RecordState.FAILED}


def _settle_absent(tx: Transaction, job: OpenJob) -> int:
    if job.state == "running":
        if progress_and_leases.note_absent(tx, job_id=job.id, attempt=job.attempt) < ABSENT_SECONDS:
            return 0
        return _fail(tx, job, code="history_unavailable", message=None, detail="absent from upstream's history")
    if not job.overdue_unclear:
        return 0
    if not job.attempts_left:
        return _fail(tx, job, code="upstream_unreachable", message=None, detail="no submit arrived upstream")
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
    tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
    return 1


def _settle_record(tx: Transaction, account: AccountRow, job: OpenJob, record: Record, finished: list[UUID]) -> int:
    if job.cancel_requested:
        row = state_machine.mark_cancelled(tx, job_id=job.id, attempt=job.attempt)
        if row is not None:
            tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
            # Upstream cannot be told to stop: the slot is free when it has finished.
            if record.state in {RecordState.DONE, RecordState.FAILED}:
                return int(progress_and_leases.release_slot(tx, job.id))
        return 0
    if record.state is RecordState.FAILED:
        code = record.error_code or "generation_failed"
        # It was accepted and may have been charged, so no other account repeats it. But what upstream holds against
        # the account would meet its next jobs as well. (Account before job, as in a claim.)
        if rest := cooldowns.rest_seconds(code, account.region, datetime.now(UTC)):
            health.rest(tx, account.id, seconds=rest, code=code)
        return _fail(tx, job, code=code, message=record.error_message, detail=record.detail)
    if record.state is RecordState.DONE or _is_stable(tx, job, record):
        return _finish(tx, job, record, finished)
    _note_progress(tx, job, record)
    return 0


def _finish(tx: Transaction, job: OpenJob, record: Record, finished: list[UUID]) -> int:
    if not record.results:
        return _fail(tx, job, code="generation_failed", message=None, detail="finished without a usable result")
    row = state_machine.mark_saving(
        tx, job_id=job.id, attempt=job.attempt, refs=[asdict(ref) for ref in record.results]
    )
    if row is None:
        return 0
    tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
    tx.on_commit(partial(finished.append, row.id))
    return 1


def _fail(tx: Transaction, job: OpenJob, *, code: str, message: str | None, detail: str | None) -> int:
    row = state_machine.mark_failed(
        tx,
        job_id=job.id,
        attempt=job.attempt,
        code=code,
        message=message or ERRORS[code].message,
        actor="poll",
        detail=detail,
        from_states=("submitting", "running"),
    )
    if row is None:
        return 0
    tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
    return 1


def _is_stable(tx: Transaction, job: OpenJob, record: Record) -> bool:
    """Some items, but no word that they are all: done once they stay as they are for a while."""
    if not record.results or len(record.results) != job.ready_items:
        return False
    row = progress_and_leases.note_stable(tx, job_id=job.id, attempt=job.attempt)
    return row is not None and row.stable_polls >= STABLE_POLLS and float(row.stable_seconds) >= STABLE_SECONDS


def _note_progress(tx: Transaction, job: OpenJob, record: Record) -> None:
    row = progress_and_leases.note_progress(
        tx,
        job_id=job.id,
        attempt=job.attempt,
        queue_position=record.queue_position,
        forecast_seconds=record.forecast_seconds,
        ready_items=len(record.results),
        progress=_progress(record),
    )
    if row is not None:
        tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
