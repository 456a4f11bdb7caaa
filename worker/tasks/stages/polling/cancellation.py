"""Cancels running jobs at an upstream that can. A job that already runs continues: it will be charged. Part of poll."""

from collections.abc import Sequence
from uuid import UUID

from worker.core.concurrency.event_loop import in_thread
from worker.core.errors import DreameryError
from worker.core.job_state import JobState
from worker.core.observability.job_context import job_context
from worker.core.observability.logging import get_logger
from worker.db.accounts import lost_answers
from worker.db.accounts.accounts import AccountRow
from worker.db.accounts.polling import OpenJob
from worker.db.engine import retry_when_database_unavailable, transaction
from worker.db.jobs import progress_and_leases, state_machine
from worker.providers.base import Cancel, Record, RecordState
from worker.providers.registry import get_provider
from worker.tasks.stages.account_session import call_upstream_async
from worker.tasks.stages.fail_job import announce
from worker.tasks.stages.polling import charges
from worker.tasks.stages.polling.lost_answers import order_of

log = get_logger("cancel")


async def cancel_requested(
    account: AccountRow, jobs: Sequence[OpenJob], records: dict[str, Record]
) -> tuple[list[OpenJob], set[UUID]]:
    """Cancel the jobs of which that was requested. Return the other jobs, and those that left their slots."""
    cancel = get_provider(account).capabilities.cancel
    if cancel is None:
        return list(jobs), set()
    others: list[OpenJob] = []
    left: set[UUID] = set()
    for job in jobs:
        record = records.get(str(job.submit_key))
        if not job.cancel_requested or job.state != JobState.RUNNING or record is None:
            others.append(job)
            continue
        with job_context("cancel", job.id, job.origin):
            if await _cancel_one(account, cancel, job, record):
                left.add(job.id)
    return others, left


async def _cancel_one(account: AccountRow, cancel: Cancel, job: OpenJob, record: Record) -> bool:
    """Cancel one job, or let it continue. Return whether it left its slot."""
    ended = record.state is RecordState.FAILED and record.charged == 0
    try:
        if not ended and record.state is RecordState.QUEUED:
            ended = await call_upstream_async(account, lambda ready: cancel.cancel(ready, order_of(job)))
    except DreameryError as error:
        log.info("cancel_not_answered", account=account.label, code=error.code, detail=error.detail)
        return False  # the next poll tries again, or finds it cancelled
    return await in_thread(_end, account, job) if ended else await in_thread(_refuse, job)


@retry_when_database_unavailable
def _end(account: AccountRow, job: OpenJob) -> bool:
    with transaction() as tx:
        row = state_machine.mark_cancelled(tx, job_id=job.id, attempt=job.attempt)
        if row is None:
            return False
        charges.settle_free(tx, account.currency, job)
        announce(tx, row)
        return progress_and_leases.release_slot(tx, job.id)


@retry_when_database_unavailable
def _refuse(job: OpenJob) -> bool:
    """Upstream has begun: the job continues, and the next poll finds its end."""
    with transaction() as tx:
        row = lost_answers.refuse_cancel(tx, job_id=job.id, attempt=job.attempt)
        if row is not None:
            announce(tx, row)
    return False
