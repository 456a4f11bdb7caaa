"""Images that an upstream makes within the call, which takes minutes. Part of submit.

The claim is kept meanwhile. What arrives early is recorded at once, so that it outlives a cut call and this process.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from worker.core.concurrency import long_calls
from worker.core.concurrency.event_loop import in_thread, spawn
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.accounts.accounts import AccountRow
from worker.db.engine import Transaction, retry_when_database_unavailable, transaction
from worker.db.jobs import progress_and_leases, state_machine
from worker.db.jobs.claims import Claim
from worker.messaging import celery_app
from worker.providers.base import Account, ImageOrder, ImmediateImages, Record, RecordState, Submitted
from worker.tasks.stages.fail_job import announce
from worker.tasks.stages.lease_renewal import LEASE_EVERY_SECONDS, LeaseLostError
from worker.tasks.stages.polling import charges, settle_record

log = get_logger("immediate_images")


async def make(claim: Claim, upstream: ImmediateImages, account: Account, order: ImageOrder) -> Submitted:
    """Make the one call. Whatever happens to the claim or the database meanwhile, the call continues: it is paid.

    Raises LeaseLostError before the call if the claim is lost or the job was cancelled.
    """
    with long_calls.counted():
        await in_thread(_record_sending, claim)
        keeping = spawn(_keep_claim(claim))
        try:
            return await upstream.generate_images(
                account, order, submit_key=str(claim.submit_key), arrived=partial(_arrived, claim)
            )
        finally:
            keeping.cancel()


@retry_when_database_unavailable
def _record_sending(claim: Claim) -> None:
    with transaction() as tx:
        if not progress_and_leases.record_sending(tx, job_id=claim.id, attempt=claim.attempt):
            raise LeaseLostError


async def _keep_claim(claim: Claim) -> None:
    pause = min(LEASE_EVERY_SECONDS, get_settings().lease_seconds / 3)
    with suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(pause)
            await _despite_errors(claim, partial(_renew, claim))


async def _arrived(claim: Claim, record: Record) -> None:
    await _despite_errors(claim, partial(_record_arrived, claim, record))


async def _despite_errors(claim: Claim, write: Any) -> None:
    try:
        await in_thread(write)
    except Exception as error:  # noqa: BLE001 - the answer of the call has everything
        log.warning("not_recorded", job_id=str(claim.id), reason=type(error).__name__)


def _renew(claim: Claim) -> None:
    with transaction() as tx:
        progress_and_leases.renew_submit_lease(tx, job_id=claim.id, attempt=claim.attempt, also_cancelled=True)


def _record_arrived(claim: Claim, record: Record) -> None:
    with transaction() as tx:
        progress_and_leases.record_arrived(
            tx, job_id=claim.id, attempt=claim.attempt, refs=settle_record.refs(record), usage=dict(record.usage)
        )


def finish(tx: Transaction, made: list[tuple[Claim, Record]]) -> list[UUID]:
    """Let the results of these jobs, which are `running`, be copied. Return the jobs that changed."""
    finished = [state_machine.Finished(claim.id, claim.attempt, settle_record.refs(record)) for claim, record in made]
    rows = state_machine.mark_saving_many(tx, finished, actor="submit")
    for claim, record in made:
        if claim.id in rows:
            charges.settle(tx, claim.account.currency, [(claim, record)])
    for row in rows.values():
        announce(tx, row)
    settle_record.enqueue_saves(tx, list(rows))
    return list(rows)


@dataclass(frozen=True, slots=True)
class _Attempt:
    id: UUID
    attempt: int


@retry_when_database_unavailable
def finish_arrived(account: AccountRow, *, job_id: UUID, attempt: int, actor: str) -> bool:
    """End a job whose call has ended without an answer: with the images that had arrived, or back into the queue if
    the call had certainly not begun. False = nothing is there, and the images may have been made.
    """
    with transaction() as tx:
        arrived = progress_and_leases.find_arrived(tx, job_id=job_id, attempt=attempt)
        if arrived is not None and arrived.result_refs is None:
            return _send_first_time(tx, account, job_id=job_id, attempt=attempt, actor=actor)
        if arrived is None or not arrived.result_refs:
            return False
        upstream_id = f"images-{arrived.submit_key}"
        row = state_machine.mark_running(tx, job_id=job_id, attempt=attempt, upstream_id=upstream_id, actor=actor)
        if row is None:
            return False
        saving = state_machine.mark_saving(tx, job_id=job_id, attempt=attempt, refs=arrived.result_refs)
        if saving is None:
            return False
        usage = arrived.usage or {}
        record = Record(str(arrived.submit_key), upstream_id, RecordState.DONE, len(arrived.result_refs), usage=usage)
        charges.settle(tx, account.currency, [(_Attempt(job_id, attempt), record)])
        announce(tx, saving)
        settle_record.enqueue_saves(tx, [job_id])
    log.warning("images_cut", job_id=str(job_id), account=account.label, images=len(arrived.result_refs))
    return True


def _send_first_time(tx: Transaction, account: AccountRow, *, job_id: UUID, attempt: int, actor: str) -> bool:
    row = state_machine.requeue(
        tx,
        job_id=job_id,
        attempt=attempt,
        actor=actor,
        reason="its process died before the order",
        delay=0.0,
        account=account.label,
        counts=False,
    )
    if row is not None:
        announce(tx, row)
        tx.on_commit(partial(celery_app.enqueue_submit, job_id=job_id))
    return row is not None
