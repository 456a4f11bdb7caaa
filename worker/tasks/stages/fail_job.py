"""Fails a job, and announces state changes to the requests that wait for it. Used by all tasks."""

from collections.abc import Collection
from functools import partial
from typing import Any
from uuid import UUID

from worker.core.errors import ERRORS, Fault
from worker.core.job_state import OPEN, JobState
from worker.core.messages.cooldown import add_cooldown
from worker.core.observability import metrics
from worker.core.observability.faults import UnexpectedError
from worker.db.engine import Row, Transaction
from worker.db.jobs import progress_and_leases, state_machine
from worker.db.scheduling import unschedulable
from worker.messaging import pubsub


def announce(tx: Transaction, row: Row[Any]) -> None:
    """Publish the new state of the job after the commit."""
    tx.on_commit(partial(pubsub.publish_job_change, row.id, row.state, row.event_seq))


def record_fault(tx: Transaction, jobs: Collection[tuple[UUID, int]], fault: UnexpectedError, *, actor: str) -> None:
    """Record in the timelines of these jobs (id, attempt) that something unexpected happened; their states stay."""
    for row in progress_and_leases.record_fault(tx, jobs, code=fault.code, detail=fault.detail or "", actor=actor):
        announce(tx, row)


def fail_job(
    tx: Transaction,
    *,
    job_id: UUID,
    attempt: int | None,
    code: str,
    actor: str,
    message: str | None = None,
    detail: str | None = None,
    account: str | None = None,
    from_states: Collection[JobState] = OPEN,
    overdue_only: bool = False,
    lapsed_only: bool = False,
) -> Row[Any] | None:
    """Fail the job and announce it. Return its row, or None when the job had already left these states.

    Without `message` the job gets the message of the error table. If all accounts cool down, the message says until
    when, unless waiting does not help. For the other arguments see `mark_failed`.
    """
    kind = ERRORS[code]
    text = message or kind.message
    waiting_helps = kind.fault is Fault.ACCOUNT and kind.status != 401
    if waiting_helps and (cooldown := unschedulable.first_cooldown_after_job(tx, job_id)):
        text = add_cooldown(text, cooldown.until, cooldown.now)
    row = state_machine.mark_failed(
        tx,
        job_id=job_id,
        attempt=attempt,
        code=code,
        message=text,
        actor=actor,
        detail=detail,
        account=account,
        from_states=from_states,
        overdue_only=overdue_only,
        lapsed_only=lapsed_only,
    )
    if row is not None:
        announce(tx, row)
        if code == "submit_unclear":
            tx.on_commit(partial(metrics.count, "dreamery_charge_doubts", code))
    return row
