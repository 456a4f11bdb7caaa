"""The tick and the sweep: look for what is due and nudge it. They never claim; each step claims for itself.

Everything that a lost message, a dead worker or an emptied Redis leaves behind is found here, in the rows.
"""

from functools import partial
from typing import Any

from worker.core.errors import ERRORS
from worker.core.observability.logging import get_logger
from worker.db.engine import Row, Transaction, retry_when_database_away, transaction
from worker.db.jobs import queries, state_machine
from worker.db.scheduling import due_work, fair_queue, unschedulable
from worker.db.webhooks.outbox import due_deliveries
from worker.messaging import celery_app, pubsub

log = get_logger("tick")

# A nudge that is older than this without effect was lost, or found no slot: send it again.
NUDGE_AGAIN_SECONDS = 1.0
SAVE_AGAIN_SECONDS = 3.0
_MOST = 300

_DEADLINE_CODE = {
    "queued": "queue_timeout",
    "submitting": "submit_unclear",
    "running": "generation_timeout",
    "saving": "result_unavailable",
}


def tick() -> str:
    """Nudge due polls, queued jobs with a free slot, and due saves."""
    with transaction() as tx:
        polls = queries.accounts_to_poll(tx, limit=_MOST)
        submits = due_work.take_submits(tx, again_after=NUDGE_AGAIN_SECONDS, limit=_MOST)
        talks = due_work.take_talks(tx, again_after=NUDGE_AGAIN_SECONDS, limit=_MOST)
        saves = due_work.take_saves(tx, again_after=SAVE_AGAIN_SECONDS, limit=_MOST)
    sent = [celery_app.nudge_poll(account_id) for account_id in polls]
    sent += [celery_app.nudge_submit(job_id=job_id) for job_id in submits]
    sent += [celery_app.nudge_converse(job_id=job_id) for job_id in talks]
    sent += [
        celery_app.nudge_save(*saves[start : start + celery_app.MOST_SAVES_PER_MESSAGE])
        for start in range(0, len(saves), celery_app.MOST_SAVES_PER_MESSAGE)
    ]
    waiting = len(submits) + len(talks)
    return f"{len(polls)} polls, {waiting} submits, {len(saves)} saves" if sent else "nothing due"


@retry_when_database_away
def sweep() -> str:
    """End what is overdue or hopeless, mend what a crash left, nudge due webhooks."""
    failed = _fail_overdue() + _fail_hopeless() + _end_lost_talks() + _end_answered_talks()
    with transaction() as tx:
        healed = due_work.heal_polls(tx)
        released = due_work.release_forgotten_slots(tx)
        deliveries = due_deliveries(tx, limit=_MOST)
        behind = fair_queue.left_behind(tx, limit=_MOST)
    for delivery_id in deliveries:
        celery_app.nudge_notify(delivery_id)
    moved = 0
    for owner in behind:
        with transaction() as tx:
            moved += fair_queue.bring_forward(tx, owner)
    if moved:
        log.info("jobs_brought_forward", jobs=moved)
    if healed or released:
        log.warning("sweep_healed", polls=healed, slots=released)
    return f"{failed} ended, {healed + released} healed, {len(deliveries)} webhooks"


def _fail_overdue() -> int:
    with transaction() as tx:
        overdue = queries.overdue_jobs(tx, limit=_MOST)
    count = 0
    for job in overdue:
        code = _DEADLINE_CODE[job.state]
        with transaction() as tx:
            row = state_machine.mark_failed(
                tx,
                job_id=job.id,
                attempt=job.attempt,
                code=code,
                message=ERRORS[code].message,
                actor="tick",
                detail=f"deadline passed while {job.state}",
                from_states=(job.state,),
                overdue_only=True,
            )
            if row is not None:
                count += 1
                tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
    return count


def _fail_hopeless() -> int:
    """Queued jobs that none of their accounts will take: switched off, refused, or at rest for long."""
    with transaction() as tx:
        found = unschedulable.stranded_jobs(tx, limit=_MOST)
    count = 0
    for job_id in found:
        with transaction() as tx:
            code = unschedulable.hopeless(tx, job_id)
            if code is None:
                continue
            row = state_machine.mark_failed(
                tx,
                job_id=job_id,
                attempt=None,
                code=code,
                message=ERRORS[code].message,
                actor="tick",
                from_states=("queued",),
            )
            if row is not None:
                count += 1
                tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
    return count


def _end_lost_talks() -> int:
    """Conversations whose worker died: sent ones broke off, the others may be sent by another worker."""
    with transaction() as tx:
        lost = due_work.lost_talks(tx, limit=_MOST)
    count = 0
    for talk in lost:
        with transaction() as tx:
            row = _end_lost_talk(tx, talk)
            if row is not None:
                count += 1
                log.warning("conversation_lost", job_id=str(talk.id), sent=talk.sent, state=row.state)
                tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
    return count


def _end_lost_talk(tx: Transaction, talk: due_work.LostTalk) -> Row[Any] | None:
    if talk.cancel_requested and talk.state == "running":
        return state_machine.mark_cancelled(tx, job_id=talk.id, attempt=talk.attempt, actor="tick")
    if not talk.sent and talk.attempts_left:
        return state_machine.requeue(
            tx,
            job_id=talk.id,
            attempt=talk.attempt,
            actor="tick",
            reason="its worker died",
            delay=0.0,
            lapsed_only=True,
        )
    code = "stream_broken" if talk.sent else "upstream_unreachable"
    return state_machine.mark_failed(
        tx,
        job_id=talk.id,
        attempt=talk.attempt,
        code=code,
        message=ERRORS[code].message,
        actor="tick",
        detail=f"its worker died while {talk.state}",
        from_states=(talk.state,),
        lapsed_only=True,
    )


def _end_answered_talks() -> int:
    """Conversations whose last job has ended."""
    with transaction() as tx:
        answered = due_work.answered_talks(tx, limit=_MOST)
    count = 0
    for job_id in answered:
        with transaction() as tx:
            row = state_machine.mark_answered(tx, job_id=job_id, actor="tick")
            if row is not None:
                count += 1
                tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
    return count
