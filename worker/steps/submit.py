"""Submit one job: claim it with an account slot, order it upstream once, note what is known afterwards.

The submit key is committed by the claim, before the call that carries it; one key is sent at most once (I4).
"""

import time
from collections.abc import Callable
from functools import partial
from uuid import UUID

from worker.bus import events, queue
from worker.core.errors import DreameryError
from worker.core.log import get_logger
from worker.core.settings import get_settings
from worker.core.watchdog import watchdog
from worker.db import accounts, jobs, standing
from worker.db.engine import Transaction, retry_when_database_away, transaction
from worker.providers.provider import NotSentError, Submitted
from worker.providers.registry import get_provider
from worker.steps import orders, references, refusals
from worker.steps.sessions import located

log = get_logger("submit")

MOST_PER_MESSAGE = 8

# How a message takes its job from an account.
_ClaimJob = Callable[[Transaction, UUID], jobs.Claim | jobs.ToBring | None]


def submit_waiting(*, job_id: UUID | None = None, account_id: UUID | None = None) -> str:
    """Submit one job after the other on the nudged account while it has slots, pace and waiting jobs.

    One message may stand for many jobs that way; each is still claimed and ordered for itself. A job whose references
    are not with the account yet is left to `bring`, on another queue: fetching and uploading may take minutes.
    """
    line, used = _submit_one(job_id, account_id, claim_job=_claim_ready)
    count = 1
    while used is not None:
        if count == MOST_PER_MESSAGE:
            # Others may wait for this thread; what is left here queues up behind them.
            queue.nudge_submit(account_id=used)
            break
        watchdog.renew()
        more, used = _submit_one(None, used, claim_job=_claim_ready)
        if used is not None:
            line, count = more, count + 1
    return line if count == 1 else f"{line} (and {count - 1} before)"


def bring(*, account_id: UUID) -> str:
    """Submit the oldest job that the account may run, after bringing its references; others go on meanwhile."""
    return _submit_one(None, account_id, claim_job=_claim_bringing)[0]


def submit(*, job_id: UUID | None = None, account_id: UUID | None = None) -> str:
    """Submit the oldest job that the given account (or the best account of the given job) may run."""
    return _submit_one(job_id, account_id, claim_job=_claim_any)[0]


def _submit_one(job_id: UUID | None, account_id: UUID | None, *, claim_job: _ClaimJob) -> tuple[str, UUID | None]:
    """What happened, and the account that was used, if any."""
    claim = _claim(job_id, account_id, claim_job)
    if isinstance(claim, jobs.ToBring):
        return f"{claim.id} waits for its references", None
    if claim is None:
        return refusals.give_up_if_hopeless(job_id) if job_id else "nothing to submit", None
    try:
        submitted = _order(claim)
    except references.ClaimLostError:
        # A no-op for a job that somebody else has; one whose caller no longer wants it is cancelled here.
        return refusals.requeue(claim, NotSentError(), delay=0.0, reason="claim lost"), claim.account.id
    except DreameryError as error:
        return refusals.refused(claim, error), claim.account.id
    _accepted(claim, submitted)
    return f"submitted {claim.id} on {claim.account.label}", claim.account.id


@retry_when_database_away
def _claim(job_id: UUID | None, account_id: UUID | None, claim_job: _ClaimJob) -> jobs.Claim | jobs.ToBring | None:
    with transaction() as tx:
        target = account_id or (accounts.ready_for_job(tx, job_id) if job_id else None)
        return claim_job(tx, target) if target else None


def _claim_any(tx: Transaction, account_id: UUID) -> jobs.Claim | None:
    return jobs.claim_next(tx, account_id=account_id)


def _claim_ready(tx: Transaction, account_id: UUID) -> jobs.Claim | jobs.ToBring | None:
    claim = jobs.claim_ready(tx, account_id=account_id)
    if isinstance(claim, jobs.ToBring):
        tx.on_commit(partial(queue.nudge_bring_soon, account_id))
    return claim


def _claim_bringing(tx: Transaction, account_id: UUID) -> jobs.Claim | None:
    claim = jobs.claim_next(tx, account_id=account_id)
    if claim is not None:
        # What waits behind it need not wait for its references.
        tx.on_commit(partial(queue.nudge_submit, account_id=account_id))
    return claim


def _order(claim: jobs.Claim) -> Submitted:
    """The one call that may cost credits, after the lookups and uploads it needs."""
    provider = get_provider()
    account = located(claim.account)
    claim, brought = references.bring(claim, account)
    watchdog.renew()
    if time.monotonic() + get_settings().call_timeout_seconds > claim.until:
        # This process stood still (a frozen container, a long swap): by now another may have ordered the job.
        raise NotSentError("the claim is too old to be ordered")
    if claim.kind == "video":
        return provider.submit_video(account, orders.video_order(claim, brought), submit_key=str(claim.submit_key))
    return provider.submit_image(account, orders.image_order(claim, brought), submit_key=str(claim.submit_key))


@retry_when_database_away
def _accepted(claim: jobs.Claim, submitted: Submitted) -> None:
    with transaction() as tx:
        # The account before the job, as in a claim.
        standing.worked(tx, claim.account.id)
        row = jobs.mark_running(
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
            tx.on_commit(partial(queue.nudge_poll, claim.account.id))
        tx.on_commit(partial(events.announce, row.id, row.state, row.event_seq))
