"""Dispatcher: the tick enqueues due work, the sweep rescues stuck jobs. Neither claims; each task claims its own work.

Both read the rows, so they also find all work that a lost message, a dead worker or an emptied Redis left behind.
"""

from typing import Any
from uuid import UUID

from worker.core.job_state import JobState
from worker.core.observability.logging import get_logger
from worker.db.engine import Row, Transaction, retry_when_database_unavailable, transaction
from worker.db.jobs import queries, state_machine
from worker.db.scheduling import due_work, fair_queue, unschedulable
from worker.db.webhooks.outbox import due_deliveries
from worker.messaging import celery_app
from worker.tasks.stages.fail_job import announce, fail_job

log = get_logger("dispatch")

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
    """Enqueue due polls, queued jobs with a free slot, and due saves."""
    with transaction() as tx:
        polls = queries.accounts_to_poll(tx, limit=_MAX_ROWS)
        submits = due_work.take_due_submits(tx, again_after=RESEND_SECONDS, limit=_MAX_ROWS)
        talks = due_work.take_due_conversations(tx, again_after=RESEND_SECONDS, limit=_MAX_ROWS)
        saves = due_work.take_due_saves(tx, again_after=RESEND_SAVE_SECONDS, limit=_MAX_ROWS)
    sent = [celery_app.enqueue_poll(account_id) for account_id in polls]
    sent += [celery_app.enqueue_submit(job_id=job_id) for job_id in submits]
    sent += [celery_app.enqueue_converse(job_id=job_id) for job_id in talks]
    sent += [
        celery_app.enqueue_save(*saves[start : start + celery_app.MOST_SAVES_PER_MESSAGE])
        for start in range(0, len(saves), celery_app.MOST_SAVES_PER_MESSAGE)
    ]
    waiting = len(submits) + len(talks)
    return f"{len(polls)} polls, {waiting} submits, {len(saves)} saves" if sent else "nothing due"


@retry_when_database_unavailable
def sweep() -> str:
    """End overdue and unschedulable jobs, repair rows after a crash, and enqueue due webhooks."""
    with transaction() as tx:  # few transactions, because mostly there is nothing to do
        overdue = queries.overdue_jobs(tx, limit=_MAX_ROWS)
        unplaced = unschedulable.find_unschedulable_jobs(tx, limit=_MAX_ROWS)
        lost = due_work.find_lost_conversations(tx, limit=_MAX_ROWS)
    failed = _fail_overdue(overdue) + _fail_unschedulable(unplaced) + _end_lost_conversations(lost)
    with transaction() as tx:
        answered = due_work.find_answered_conversations(tx, limit=_MAX_ROWS)
        healed = due_work.schedule_missing_polls(tx)
        released = due_work.release_expired_slots(tx)
        deliveries = due_deliveries(tx, limit=_MAX_ROWS)
        behind = fair_queue.find_owners_to_rebase(tx, limit=_MAX_ROWS)
    for delivery_id in deliveries:
        celery_app.enqueue_notify(delivery_id)
    failed += _end_answered_conversations(answered)
    moved = 0
    for owner in behind:
        with transaction() as tx:
            moved += fair_queue.rebase(tx, owner)
    if moved:
        log.info("jobs_brought_forward", jobs=moved)
    if healed or released:
        log.warning("sweep_healed", polls=healed, slots=released)
    return f"{failed} ended, {healed + released} healed, {len(deliveries)} webhooks"


def _fail_overdue(overdue: list[Row[Any]]) -> int:
    count = 0
    for job in overdue:
        code = _DEADLINE_CODE[job.state]
        with transaction() as tx:
            row = fail_job(
                tx,
                job_id=job.id,
                attempt=job.attempt,
                code=code,
                actor="tick",
                detail=f"deadline passed while {job.state}",
                from_states=(job.state,),
                overdue_only=True,
            )
            count += row is not None
    return count


def _fail_unschedulable(job_ids: list[UUID]) -> int:
    """Fail queued jobs that no account will take: all are disabled, refused the job, or have a long cooldown."""
    count = 0
    for job_id in job_ids:
        with transaction() as tx:
            code = unschedulable.unschedulable_reason(tx, job_id)
            if code is None:
                continue
            row = fail_job(tx, job_id=job_id, attempt=None, code=code, actor="tick", from_states=(JobState.QUEUED,))
            count += row is not None
    return count


def _end_lost_conversations(lost: list[due_work.LostConversation]) -> int:
    """Fail conversations that were sent by a dead worker; requeue those that were not sent yet."""
    count = 0
    for talk in lost:
        with transaction() as tx:
            row = _end_lost_conversation(tx, talk)
            if row is not None:
                count += 1
                log.warning("conversation_lost", job_id=str(talk.id), sent=talk.sent, state=row.state)
    return count


def _end_lost_conversation(tx: Transaction, talk: due_work.LostConversation) -> Row[Any] | None:
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


def _end_answered_conversations(answered: list[UUID]) -> int:
    """End conversations whose last job has ended."""
    count = 0
    for job_id in answered:
        with transaction() as tx:
            row = state_machine.mark_answered(tx, job_id=job_id, actor="tick")
            if row is not None:
                count += 1
                announce(tx, row)
    return count
