"""Submit one job: claim it with an account slot, order it upstream once, note what is known afterwards.

The submit key is committed by the claim, before the call that carries it; one key is sent at most once (I4).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from worker.core.errors import DreameryError
from worker.core.observability.job_context import about_job
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.core.shutdown import stopping
from worker.core.watchdog import watchdog
from worker.db.accounts import accounts, health
from worker.db.engine import retry_when_database_away, transaction
from worker.db.jobs import state_machine
from worker.messaging import celery_app, pubsub
from worker.providers.base import NotSentError, Submitted
from worker.providers.registry import get_provider
from worker.tasks.stages import build_order, handle_refusal, upload_references
from worker.tasks.stages import claim as claiming
from worker.tasks.stages.account_session import located
from worker.tasks.stages.claim import How

log = get_logger("submit")

MOST_PER_MESSAGE = 8

_ANY, _READY = How(), How(brings=False)


@dataclass(frozen=True, slots=True)
class _Done:
    """What came of one claim: a line for the log, the account to go on with (None = no job was claimed), the job."""

    line: str
    account_id: UUID | None = None
    job_id: UUID | None = None


def submit_waiting(*, job_id: UUID | None = None, account_id: UUID | None = None) -> str:
    """Submit one job after the other for the nudged account while it has slots, pace and waiting jobs.

    One message may stand for many jobs that way; each is still claimed and ordered for itself. A job whose references
    are not with the account yet is left to `bring`, on another queue: fetching and uploading may take minutes.
    """
    done = _submit_one(job_id, account_id, how=_READY)
    line, count = done.line, 1
    while done.account_id is not None:
        if done.job_id == job_id:
            job_id = None
        if count == MOST_PER_MESSAGE or stopping.asked:
            # Others may wait for this thread; what is left here queues up behind them, or goes to another worker.
            celery_app.nudge_submit(account_id=done.account_id)
            if job_id is not None:
                celery_app.nudge_submit(job_id=job_id)
            break
        watchdog.renew()
        done = _submit_one(None, done.account_id, how=_READY)
        if done.account_id is None and job_id is not None:
            # Jobs before it took what was free there; for this one another account may be.
            done = _submit_one(job_id, None, how=_READY)
        if done.account_id is not None:
            line, count = done.line, count + 1
    return line if count == 1 else f"{line} (and {count - 1} before)"


def bring(*, account_id: UUID) -> str:
    """Submit the first job that the account may run, after bringing its references; others go on meanwhile."""
    # What waits behind it need not wait for its references.
    return _submit_one(None, account_id, how=_ANY, then=celery_app.nudge_submit).line


def submit(*, job_id: UUID | None = None, account_id: UUID | None = None) -> str:
    """Submit the first job that the given account (or the best account of the given job) may run."""
    return _submit_one(job_id, account_id, how=_ANY).line


def _submit_one(
    job_id: UUID | None, account_id: UUID | None, *, how: How, then: Callable[..., object] | None = None
) -> _Done:
    """Claim a job and order it. `then` = who is told of the account after the claim."""
    claim, used = claiming.claim(how, job_id=job_id, account_id=account_id)
    if isinstance(claim, state_machine.ToBring):
        return _Done(f"{claim.id} waits for its references")
    if claim is None:
        return _Done(handle_refusal.give_up_if_hopeless(job_id) if job_id else "nothing to submit")
    if then is not None:
        then(account_id=used)
    with about_job("submit", claim.id, claim.origin):
        return _Done(_submit_claimed(claim), used, claim.id)


def _submit_claimed(claim: state_machine.Claim) -> str:
    try:
        submitted = _order(claim)
    except upload_references.ClaimLostError:
        # A no-op for a job that somebody else has; one whose caller no longer wants it is cancelled here.
        return handle_refusal.requeue(claim, NotSentError(), delay=0.0, reason="claim lost")
    except DreameryError as error:
        return handle_refusal.refused(claim, error)
    _accepted(claim, submitted)
    return f"submitted {claim.id} on {claim.account.label}"


def _order(claim: state_machine.Claim) -> Submitted:
    """The one call that may cost credits, after the lookups and uploads it needs."""
    provider = get_provider()
    account = located(claim.account)
    claim, brought = upload_references.bring(claim, account)
    watchdog.renew()
    if time.monotonic() + get_settings().call_timeout_seconds > claim.until:
        # This process stood still (a frozen container, a long swap): by now another may have ordered the job.
        raise NotSentError("the claim is too old to be ordered")
    if claim.kind == "video":
        return provider.submit_video(account, build_order.video_order(claim, brought), submit_key=str(claim.submit_key))
    return provider.submit_image(account, build_order.image_order(claim, brought), submit_key=str(claim.submit_key))


@retry_when_database_away
def _accepted(claim: state_machine.Claim, submitted: Submitted) -> None:
    with transaction() as tx:
        # The account before the job, as in a claim.
        health.worked(tx, claim.account.id)
        row = state_machine.mark_running(
            tx,
            job_id=claim.id,
            attempt=claim.attempt,
            upstream_id=submitted.upstream_id,
            actor="submit",
            queue_position=submitted.queue_position,
            forecast_seconds=submitted.forecast_seconds,
        )
        if row is None:
            log.info("submit_overtaken", job_id=str(claim.id))
            return
        # Asked at once when the account was idle: upstream's checks of the text refuse within the first moments.
        if accounts.poll_soon(tx, claim.account.id):
            tx.on_commit(partial(celery_app.nudge_poll, claim.account.id))
        tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
