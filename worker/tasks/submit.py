"""Submits a job: claims it with an account slot, orders it upstream once, and records the result.

The claim commits the submit key before the call that carries it, and a key is sent at most once (I4).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from worker.core.errors import DreameryError
from worker.core.observability.job_context import job_context
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.core.shutdown import stopping
from worker.core.watchdog import watchdog
from worker.db.accounts import accounts, health
from worker.db.engine import retry_when_database_unavailable, transaction
from worker.db.jobs import state_machine
from worker.messaging import celery_app
from worker.providers.base import NotSentError, Submitted
from worker.providers.registry import get_provider
from worker.tasks.stages import build_order, handle_refusal, upload_references
from worker.tasks.stages.account_session import prepare_account
from worker.tasks.stages.claim import ClaimOptions, claim_job
from worker.tasks.stages.fail_job import announce

log = get_logger("submit")

MAX_PER_MESSAGE = 8

_WITH_UPLOADS, _WITHOUT_UPLOADS = ClaimOptions(), ClaimOptions(uploads_references=False)


@dataclass(frozen=True, slots=True)
class _SubmitResult:
    """The result of one claim: a summary line, the account to continue with (None = no claim), the job."""

    line: str
    account_id: UUID | None = None
    job_id: UUID | None = None


def submit_batch(*, job_id: UUID | None = None, account_id: UUID | None = None) -> str:
    """Submit one job after the other on the account while it has free slots, pace and waiting jobs.

    One message may submit many jobs this way; each is claimed and ordered separately. A job with missing references
    is left to `upload_and_submit` on another queue, because fetching and uploading may take minutes.
    """
    result = _submit_one(job_id, account_id, options=_WITHOUT_UPLOADS)
    line, count = result.line, 1
    while result.account_id is not None:
        if result.job_id == job_id:
            job_id = None
        if count == MAX_PER_MESSAGE or stopping.requested:
            # Other messages may wait for this thread: the rest queues up behind them or goes to another worker.
            celery_app.enqueue_submit(account_id=result.account_id)
            if job_id is not None:
                celery_app.enqueue_submit(job_id=job_id)
            break
        watchdog.renew()
        result = _submit_one(None, result.account_id, options=_WITHOUT_UPLOADS)
        if result.account_id is None and job_id is not None:
            # Earlier jobs took the free slots of that account; another account may be free for this job.
            result = _submit_one(job_id, None, options=_WITHOUT_UPLOADS)
        if result.account_id is not None:
            line, count = result.line, count + 1
    return line if count == 1 else f"{line} (and {count - 1} before)"


def upload_and_submit(*, account_id: UUID) -> str:
    """Upload the references of the first job that the account may run, and submit it."""
    # The next jobs of the account need not wait for these uploads.
    return _submit_one(None, account_id, options=_WITH_UPLOADS, after_claim=celery_app.enqueue_submit).line


def submit(*, job_id: UUID | None = None, account_id: UUID | None = None) -> str:
    """Submit the first job that the given account (or the best account of the given job) may run."""
    return _submit_one(job_id, account_id, options=_WITH_UPLOADS).line


def _submit_one(
    job_id: UUID | None,
    account_id: UUID | None,
    *,
    options: ClaimOptions,
    after_claim: Callable[..., object] | None = None,
) -> _SubmitResult:
    """Claim a job and order it. `after_claim` is called with the account once the job is claimed."""
    claim, used = claim_job(options, job_id=job_id, account_id=account_id)
    if isinstance(claim, state_machine.NeedsUploads):
        return _SubmitResult(f"{claim.id} waits for its references")
    if claim is None:
        return _SubmitResult(handle_refusal.fail_if_unschedulable(job_id) if job_id else "nothing to submit")
    if after_claim is not None:
        after_claim(account_id=used)
    with job_context("submit", claim.id, claim.origin):
        return _SubmitResult(_submit_claimed(claim), used, claim.id)


def _submit_claimed(claim: state_machine.Claim) -> str:
    try:
        submitted = _order(claim)
    except upload_references.ClaimLostError:
        # Does nothing if another task claimed the job; cancels the job if its cancellation was requested.
        return handle_refusal.requeue(claim, NotSentError(), delay=0.0, reason="claim lost")
    except DreameryError as error:
        return handle_refusal.handle_refusal(claim, error)
    _mark_running(claim, submitted)
    return f"submitted {claim.id} on {claim.account.label}"


def _order(claim: state_machine.Claim) -> Submitted:
    """Make the one call that may cost credits, after the look-ups and uploads it needs."""
    provider = get_provider()
    account = prepare_account(claim.account)
    claim, uploaded = upload_references.upload(claim, account)
    watchdog.renew()
    if time.monotonic() + get_settings().call_timeout_seconds > claim.expires_at:
        # This process was paused (frozen container, swapping), so another one may have ordered the job by now.
        raise NotSentError("the claim is too old to be ordered")
    if claim.kind == "video":
        return provider.submit_video(
            account, build_order.build_video_order(claim, uploaded), submit_key=str(claim.submit_key)
        )
    return provider.submit_image(
        account, build_order.build_image_order(claim, uploaded), submit_key=str(claim.submit_key)
    )


@retry_when_database_unavailable
def _mark_running(claim: state_machine.Claim, submitted: Submitted) -> None:
    with transaction() as tx:
        # Lock order: account before job, as in a claim.
        health.record_success(tx, claim.account.id)
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
        # Poll an idle account at once: upstream's prompt checks refuse within the first moments.
        if accounts.schedule_poll(tx, claim.account.id):
            tx.on_commit(partial(celery_app.enqueue_poll, claim.account.id))
        announce(tx, row)
