"""The claim of a step: by the nudged account, unless another that is free now is clearly better for the job.

The better one is not sent a message: this step claims for it, in a transaction of its own. So no two accounts can pass
a job to and fro, and no nudge is spent for nothing: when the better one takes nothing after all, the first does.
"""

from dataclasses import dataclass
from functools import partial
from uuid import UUID

from worker.db.accounts.concurrency import SUBMIT_KINDS
from worker.db.engine import Transaction, retry_when_database_away, transaction
from worker.db.jobs import state_machine
from worker.db.scheduling import account_scoring
from worker.messaging import celery_app


@dataclass(frozen=True, slots=True)
class How:
    """What the step claims, and whether it brings references to the account."""

    kinds: tuple[str, ...] = SUBMIT_KINDS
    actor: str = "submit"
    brings: bool = True


_Found = state_machine.Claim | state_machine.ToBring | None


def claim(how: How, *, job_id: UUID | None = None, account_id: UUID | None = None) -> tuple[_Found, UUID | None]:
    """The first job of an account (or of the best account for a job), and that account: it may have room for more."""
    tried: set[UUID] = set()
    while True:
        found, target = _claim(how, job_id, account_id)
        if found is not None or account_id is not None or target is None or target in tried:
            return found, target
        # Others filled it between the look and the claim; another account may be free for the job.
        tried.add(target)


@retry_when_database_away
def _claim(how: How, job_id: UUID | None, account_id: UUID | None) -> tuple[_Found, UUID | None]:
    with transaction() as tx:
        target = account_id or (account_scoring.best_for_job(tx, job_id) if job_id else None)
        found = _try(tx, target, how, yields=True) if target else None
    if not isinstance(found, state_machine.Yielded) or target is None:
        return _unyielded(found), target
    with transaction() as tx:
        better = _try(tx, found.account_id, how, waits=False)
    if isinstance(better, state_machine.Claim):
        return better, target
    with transaction() as tx:
        mine = _try(tx, target, how)
        if not isinstance(mine, state_machine.Claim):
            # While it was held here, others may have passed the job over, and both accounts are taken by now.
            tx.on_commit(partial(celery_app.nudge_claim, found.kind, job_id=found.id))
    return _unyielded(mine), target


def _unyielded(found: _Found | state_machine.Yielded) -> _Found:
    return None if isinstance(found, state_machine.Yielded) else found


def _try(
    tx: Transaction, account_id: UUID, how: How, *, yields: bool = False, waits: bool = True
) -> _Found | state_machine.Yielded:
    found = state_machine.claim_or_yield(
        tx,
        account_id=account_id,
        kinds=how.kinds,
        actor=how.actor,
        brings=how.brings,
        yields=yields,
        waits=waits,
    )
    if isinstance(found, state_machine.ToBring):
        tx.on_commit(partial(celery_app.nudge_bring_soon, account_id))
    return found
