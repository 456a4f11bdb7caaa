"""What holds new jobs before the queue: their times, the lane for idle accounts, and the limit of their key."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from api.auth.dependencies import Caller
from worker.core.errors import DreameryError
from worker.core.quotas import CONCURRENT_JOBS
from worker.db.batches import held_jobs
from worker.db.batches.held_jobs import HeldGroup
from worker.db.engine import Transaction
from worker.db.jobs.state_machine import NewJob
from worker.messaging import celery_app

_FULL_RETRY_SECONDS = 60


def with_schedule(job: NewJob, caller: Caller) -> NewJob:
    """Return the job with the times of its request, and with what holds it."""
    when = caller.schedule
    is_limited = any(limit.name == CONCURRENT_JOBS for limit in caller.limits)
    hold = held_jobs.key_hold(caller.key_root) if is_limited and caller.key_root is not None else None
    if hold is None and when.idle:
        hold = held_jobs.IDLE
    elif hold is None and when.not_before is not None:
        hold = held_jobs.TIME
    lane = held_jobs.IDLE if when.idle else None
    return replace(job, hold=hold, lane=lane, not_before=when.not_before, expires_at=when.expires_at)


def release_accepted(tx: Transaction, caller: Caller, jobs: Sequence[NewJob]) -> None:
    """Let written jobs go on at once as far as they may, behind earlier ones of the same hold. The tick goes on later.

    Raises `queue_full` when the caller has too many held jobs.
    """
    holds = {job.hold for job in jobs if job.hold is not None}
    if not holds:
        return
    check_room(tx, caller, 0)
    for hold in sorted(holds):
        released = held_jobs.release(tx, HeldGroup(caller.owner, hold))
        tx.on_commit(partial(celery_app.enqueue_jobs, released))


def check_room(tx: Transaction, caller: Caller, more: int) -> None:
    """Raise `queue_full` when the caller would have too many held jobs with these."""
    most = held_jobs.MOST_HELD
    if held_jobs.count_held(tx, caller.owner, at_most=most + 1) + more > most:
        message = f"At most {most} jobs of a user may wait before the queue. Wait until some of them have begun."
        raise DreameryError("queue_full", message, retry_after=_FULL_RETRY_SECONDS)
