"""Dispatcher: the tick enqueues due work, the sweep rescues stuck jobs. Neither claims; each task claims its own work.

Both read the rows, so they also find all work that a lost message, a dead worker or an emptied Redis left behind.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from worker.core.job_state import JobState
from worker.core.observability.faults import UnexpectedError
from worker.core.observability.logging import get_logger
from worker.db.batches import held_jobs
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, Row, Transaction, retry_when_database_unavailable, transaction
from worker.db.jobs import queries, state_machine
from worker.db.scheduling import due_work, fair_queue, unschedulable
from worker.db.webhooks.outbox import due_deliveries
from worker.messaging import celery_app, pubsub
from worker.tasks.stages.fail_job import announce, fail_job

log = get_logger("dispatch")

Outcome = TypeVar("Outcome")

# A message that had no effect for this long was lost or found no free slot: it is sent again.
RESEND_SECONDS = 1.0
RESEND_SAVE_SECONDS = 3.0
_MAX_ROWS = 300

_DEADLINE_CODE = {
    JobState.QUEUED: "queue_timeout",
    JobState.SUBMITTING: "submit_unclear",
    JobState.RUNNING: "generation_timeout",
    JobState.SAVING: "result_unavailable",
}


def tick() -> str:
    """Release held jobs; enqueue due polls, queued jobs with a free slot, and due saves."""
    _move_held_jobs()
    polls, submits, talks, saves = _find(
        lambda tx: queries.accounts_to_poll(tx, limit=_MAX_ROWS),
        lambda tx: due_work.take_due_submits(tx, again_after=RESEND_SECONDS, limit=_MAX_ROWS),
        lambda tx: due_work.take_due_conversations(tx, again_after=RESEND_SECONDS, limit=_MAX_ROWS),
        lambda tx: due_work.take_due_saves(tx, again_after=RESEND_SAVE_SECONDS, limit=_MAX_ROWS),
    )
    sent = [celery_app.enqueue_poll(account_id) for account_id in polls]
    sent += [celery_app.enqueue_submit(job_id=job_id) for job_id in submits]
    sent += [celery_app.enqueue_converse(job_id=job_id) for job_id in talks]
    sent += [
        celery_app.enqueue_save(*saves[start : start + celery_app.MOST_SAVES_PER_MESSAGE])
        for start in range(0, len(saves), celery_app.MOST_SAVES_PER_MESSAGE)
    ]
    waiting = len(submits) + len(talks)
    return f"{len(polls)} polls, {waiting} submits, {len(saves)} saves" if sent else "nothing due"


def _move_held_jobs() -> None:
    """Release held jobs whose time has come, and hold back those of paused batches."""
    groups, moved = _find(held_jobs.find_due_groups, held_jobs.hold_back_paused)
    for released in _each(held_jobs.release, groups):
        celery_app.enqueue_jobs(released)
        moved += released
    pubsub.publish_job_changes(moved)


@retry_when_database_unavailable
def sweep() -> str:
    """End overdue and unschedulable jobs, repair rows after a crash, and enqueue due webhooks."""
    overdue, unplaced, lost = _find(
        lambda tx: queries.overdue_jobs(tx, limit=_MAX_ROWS),
        lambda tx: unschedulable.find_unschedulable_jobs(tx, limit=_MAX_ROWS),
        lambda tx: due_work.find_lost_conversations(tx, limit=_MAX_ROWS),
    )
    failed = _count(_fail_overdue, overdue) + _count(_fail_unschedulable, unplaced) + _count(_end_lost, lost)
    (expired,) = _find(lambda tx: held_jobs.fail_overdue(tx, limit=_MAX_ROWS))
    pubsub.publish_job_changes(expired)
    answered, polls, slots, deliveries, behind = _find(
        lambda tx: due_work.find_answered_conversations(tx, limit=_MAX_ROWS),
        lambda tx: [due_work.schedule_missing_polls(tx)],
        lambda tx: [due_work.release_expired_slots(tx)],
        lambda tx: due_deliveries(tx, limit=_MAX_ROWS),
        lambda tx: fair_queue.find_owners_to_rebase(tx, limit=_MAX_ROWS),
    )
    for delivery_id in deliveries:
        celery_app.enqueue_notify(delivery_id)
    failed += _count(_mark_answered, answered)
    if moved := sum(_each(fair_queue.rebase, behind)):
        log.info("jobs_brought_forward", jobs=moved)
    healed = sum(polls) + sum(slots)
    if healed:
        log.warning("sweep_healed", polls=sum(polls), slots=sum(slots))
    return f"{failed} ended, {healed} healed, {len(deliveries)} webhooks"


def _find(*finds: Callable[[Transaction], list[Any]]) -> list[list[Any]]:
    """Run these queries in one transaction, because mostly there is nothing to do.

    After a fault each runs alone, so that one that fails does not stop the others; it finds nothing.
    """
    try:
        return _find_together(*finds)
    except DATABASE_UNAVAILABLE_ERRORS:
        raise
    except Exception:  # noqa: BLE001 - logged with the query that has it
        return [found[0] if (found := _alone(partial(_find_together, find))) else [] for find in finds]


def _find_together(*finds: Callable[[Transaction], list[Any]]) -> list[list[Any]]:
    with transaction() as tx:
        return [find(tx) for find in finds]


def _alone(work: Callable[[], Outcome], job_id: object = "") -> Outcome | None:
    """Do one part. A fault in it is logged, and the other parts still run."""
    try:
        return work()
    except DATABASE_UNAVAILABLE_ERRORS:
        raise
    except BaseException as error:  # noqa: BLE001
        fault = UnexpectedError(error)
        log.error("dispatch_failed", job_id=str(job_id), detail=fault.detail, trace=fault.frames)  # noqa: TRY400
        return None


def _each(change: Callable[[Transaction, Any], Outcome], items: Iterable[Any]) -> list[Outcome]:
    """Change each item in its own transaction. Return the outcomes without those of faults."""

    def change_one(item: Any) -> Outcome:
        with transaction() as tx:
            return change(tx, item)

    outcomes = [_alone(partial(change_one, item), getattr(item, "id", item)) for item in items]
    return [outcome for outcome in outcomes if outcome is not None]


def _count(change: Callable[[Transaction, Any], "Row[Any] | None"], jobs: Iterable[Any]) -> int:
    return len(_each(change, jobs))


def _fail_overdue(tx: Transaction, job: Row[Any]) -> Row[Any] | None:
    return fail_job(
        tx,
        job_id=job.id,
        attempt=job.attempt,
        code=held_jobs.EXPIRED if job.has_expired else _DEADLINE_CODE[job.state],
        actor="tick",
        detail=f"deadline passed while {job.state}",
        from_states=(job.state,),
        overdue_only=True,
    )


def _fail_unschedulable(tx: Transaction, job_id: UUID) -> Row[Any] | None:
    """Fail a queued job that no account will take: all are disabled, refused the job, or have a long cooldown."""
    code = unschedulable.unschedulable_reason(tx, job_id)
    if code is None:
        return None
    return fail_job(tx, job_id=job_id, attempt=None, code=code, actor="tick", from_states=(JobState.QUEUED,))


def _end_lost(tx: Transaction, talk: due_work.LostConversation) -> Row[Any] | None:
    row = _end_lost_conversation(tx, talk)
    if row is not None:
        log.warning("conversation_lost", job_id=str(talk.id), sent=talk.sent, state=row.state)
    return row


def _end_lost_conversation(tx: Transaction, talk: due_work.LostConversation) -> Row[Any] | None:
    """Fail a conversation that was sent by a dead worker; requeue one that was not sent yet."""
    if talk.cancel_requested and talk.state == JobState.RUNNING:
        row = state_machine.mark_cancelled(tx, job_id=talk.id, attempt=talk.attempt, actor="tick")
    elif not talk.sent and talk.attempts_left:
        row = state_machine.requeue(
            tx,
            job_id=talk.id,
            attempt=talk.attempt,
            actor="tick",
            reason="its worker died",
            delay=0.0,
            lapsed_only=True,
        )
    else:
        return fail_job(
            tx,
            job_id=talk.id,
            attempt=talk.attempt,
            code="stream_broken" if talk.sent else "upstream_unreachable",
            actor="tick",
            detail=f"its worker died while {talk.state}",
            from_states=(talk.state,),
            lapsed_only=True,
        )
    if row is not None:
        announce(tx, row)
    return row


def _mark_answered(tx: Transaction, job_id: UUID) -> Row[Any] | None:
    row = state_machine.mark_answered(tx, job_id=job_id, actor="tick")
    if row is not None:
        announce(tx, row)
    return row
