"""Claims a job for a task: by the account of the message, unless another free account is clearly better for the job.

The better account gets no message of its own. This task claims for it, in a separate transaction. So two accounts
cannot pass a job back and forth, and no message is wasted: if the better account gets nothing, the first one claims.
"""

from dataclasses import dataclass
from functools import partial
from uuid import UUID

from worker.db.accounts.concurrency import SUBMIT_KINDS
from worker.db.engine import Transaction, retry_when_database_unavailable, transaction
from worker.db.jobs import state_machine
from worker.db.scheduling import account_scoring
from worker.messaging import celery_app


@dataclass(frozen=True, slots=True)
class ClaimOptions:
    """What a task claims, and whether it uploads references to the account."""

    kinds: tuple[str, ...] = SUBMIT_KINDS
    actor: str = "submit"
    uploads_references: bool = True


_ClaimResult = state_machine.Claim | state_machine.NeedsUploads | None


def claim_job(
    options: ClaimOptions, *, job_id: UUID | None = None, account_id: UUID | None = None
) -> tuple[_ClaimResult, UUID | None]:
    """Claim the first job of the account, or of the best account for the job.

    Return the claim and that account, which may have room for more jobs.
    """
    tried: set[UUID] = set()
    while True:
        result, target = _claim(options, job_id, account_id)
        if result is not None or account_id is not None or target is None or target in tried:
            return result, target
        # Other tasks filled the account between the choice and the claim; another account may be free for the job.
        tried.add(target)


@retry_when_database_unavailable
def _claim(options: ClaimOptions, job_id: UUID | None, account_id: UUID | None) -> tuple[_ClaimResult, UUID | None]:
    with transaction() as tx:
        target = account_id or (account_scoring.find_best_account(tx, job_id) if job_id else None)
        result = _claim_for_account(tx, target, options, may_yield=True) if target else None
    if not isinstance(result, state_machine.Yielded) or target is None:
        return _without_yielded(result), target
    with transaction() as tx:
        better = _claim_for_account(tx, result.account_id, options, wait_for_lock=False)
    if isinstance(better, state_machine.Claim):
        return better, target
    with transaction() as tx:
        own = _claim_for_account(tx, target, options)
        if not isinstance(own, state_machine.Claim):
            # While this task held the job, others may have skipped it, and now both accounts are busy.
            tx.on_commit(partial(celery_app.enqueue_claim, result.kind, job_id=result.id))
    return _without_yielded(own), target


def _without_yielded(result: _ClaimResult | state_machine.Yielded) -> _ClaimResult:
    return None if isinstance(result, state_machine.Yielded) else result


def _claim_for_account(
    tx: Transaction, account_id: UUID, options: ClaimOptions, *, may_yield: bool = False, wait_for_lock: bool = True
) -> _ClaimResult | state_machine.Yielded:
    result = state_machine.claim_or_yield(
        tx,
        account_id=account_id,
        kinds=options.kinds,
        actor=options.actor,
        can_upload=options.uploads_references,
        may_yield=may_yield,
        wait_for_lock=wait_for_lock,
    )
    if isinstance(result, state_machine.NeedsUploads):
        tx.on_commit(partial(celery_app.enqueue_upload_references_soon, account_id))
    return result
