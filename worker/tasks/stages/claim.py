"""Claims jobs for a task: by the account of the message, unless another free account is clearly better for a job.

The better account gets no message of its own. This task claims for it, in a separate transaction. So two accounts
cannot pass a job back and forth, and no message is wasted: if the better account gets nothing, the first one claims.
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID, uuid4

from worker.db.accounts.concurrency import SUBMIT_KINDS
from worker.db.engine import retry_when_database_unavailable, transaction
from worker.db.jobs import claims
from worker.db.jobs.claims import Claim, ClaimBatch, ClaimRequest, NeedsUploads
from worker.db.jobs.set_aside import SetAside
from worker.db.scheduling import account_scoring
from worker.messaging import celery_app
from worker.providers.registry import takers_of_files


@dataclass(frozen=True, slots=True)
class ClaimOptions:
    """What a task claims, and whether it uploads references to the account."""

    kinds: tuple[str, ...] = SUBMIT_KINDS
    actor: str = "submit"
    uploads_references: bool = True


def find_account(job_id: UUID) -> UUID | None:
    """Return the best account that could take this queued job now; None if there is none."""
    with transaction(plan_once=True) as tx:
        return account_scoring.find_best_account(tx, job_id)


def claim_batch(options: ClaimOptions, account_id: UUID, *, limit: int = claims.MAX_CLAIMS) -> ClaimBatch:
    """Claim the next jobs of the account, or one job for an account that is clearly better for it."""
    request = ClaimRequest(
        kinds=options.kinds,
        actor=options.actor,
        can_upload=options.uploads_references,
        may_yield=True,
        keys=[uuid4() for _ in range(limit)],
        takers_of_files=takers_of_files(),
    )
    batch = _claim(account_id, request)
    yielded = batch.yielded
    if yielded is None:
        return batch
    better = _claim(yielded.account_id, replace(request, keys=[uuid4()], may_yield=False, wait_for_lock=False))
    if better.claims:
        # The account of the message may have more jobs: it continues.
        return replace(batch, claims=[*batch.claims, *better.claims], wait_seconds=batch.wait_seconds or 0.0)
    if better.set_aside:
        return replace(batch, set_aside=[*batch.set_aside, *better.set_aside])
    own = _claim(account_id, replace(request, keys=[uuid4()], may_yield=False))
    if not own.claims and not own.set_aside:
        # While this task held the job, others may have skipped it, and now both accounts are busy.
        celery_app.enqueue_claim(yielded.kind, job_id=yielded.id)
    return replace(own, claims=[*batch.claims, *own.claims], set_aside=[*batch.set_aside, *own.set_aside])


def claim_job(
    options: ClaimOptions, *, job_id: UUID | None = None, account_id: UUID | None = None
) -> tuple[Claim | NeedsUploads | SetAside | None, UUID | None]:
    """Claim the first job of the account, or of the best account for the job.

    Return the claim and that account, which may have room for more jobs. A job that is set aside lacks references.
    """
    tried: set[UUID] = set()
    while True:
        target = account_id or (find_account(job_id) if job_id else None)
        if target is None or target in tried:
            return None, target
        batch = claim_batch(options, target, limit=1)
        found: list[Claim | SetAside] = [*batch.claims, *batch.set_aside]
        result = found[0] if found else batch.needs_uploads
        if result is not None or account_id is not None:
            return result, target
        # Other tasks filled the account between the choice and the claim; another account may be free for the job.
        tried.add(target)


def _claim(account_id: UUID, request: ClaimRequest) -> ClaimBatch:
    """Claim in one transaction. A repeat after a lost answer first looks for the claims of its keys."""
    attempts, started = 0, time.monotonic()

    @retry_when_database_unavailable
    def attempt() -> ClaimBatch:
        nonlocal attempts
        attempts += 1
        with transaction(plan_once=True) as tx:
            if attempts > 1 and (known := claims.find_claims(tx, request.keys, started=started)):
                return ClaimBatch(claims=known, wait_seconds=0.0)
            batch = claims.claim_batch(tx, account_id, request)
            if batch.needs_uploads is not None:
                tx.on_commit(partial(celery_app.enqueue_upload_references_soon, account_id))
            if not batch.claims and not batch.set_aside:
                # Each freed slot asks, and with few jobs mostly in vain. The next claim waits for the lock.
                tx.end_unwritten()
            return batch

    return attempt()
