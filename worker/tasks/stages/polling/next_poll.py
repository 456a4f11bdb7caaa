"""Wakes the next poll of an account at its time: in this process if it is a worker, else by a message."""

from uuid import UUID

from worker.core.concurrency import continuations
from worker.messaging import celery_app


def poll_later(account_id: UUID, seconds: float) -> None:
    """Wake the poll of the account after `seconds`. The tick alone would be up to half a second late."""
    if not continuations.start("poll", account_id, seconds=seconds):
        celery_app.enqueue_poll_later(account_id, seconds=seconds)
