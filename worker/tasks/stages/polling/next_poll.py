"""Wakes the next poll of an account at its time: in this process if it is a worker, else by a message."""

from collections.abc import Mapping
from functools import partial
from uuid import UUID

from worker.core.concurrency import continuations
from worker.db.accounts import polling
from worker.db.engine import Transaction
from worker.messaging import celery_app
from worker.tasks.stages.polling.claimed_poll import claim_due_polls


def poll_later(account_id: UUID, seconds: float) -> None:
    """Wake the poll of the account after `seconds`. The tick alone would be up to half a second late."""
    if not continuations.start("poll", account_id, seconds=seconds):
        celery_app.enqueue_poll_later(account_id, seconds=seconds)


def schedule_looks(tx: Transaction, looks: Mapping[UUID, float]) -> None:
    """Schedule a poll of each account in so many seconds, because of jobs that were submitted.

    What is due now is claimed with it, if this process polls: that saves a job that is done at once a transaction.
    """
    scheduled = polling.schedule_polls(tx, looks, at_once=True)
    due = [account_id for account_id, seconds in scheduled.items() if seconds <= 0]
    claimed = claim_due_polls(tx, due) if due and continuations.handles("poll_claimed") else {}
    for poll in claimed.values():
        tx.on_commit(partial(continuations.start, "poll_claimed", poll, promised=True))
    for account_id, seconds in scheduled.items():
        if account_id not in claimed:
            tx.on_commit(partial(poll_later, account_id, seconds))
