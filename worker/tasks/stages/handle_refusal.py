"""Handles upstream's refusal of a claimed job, or a failure to reach it: retry, try another account, or fail the job.

Used by the tasks that claim a job and make one call for it (submit, converse). The error table decides the reaction.
"""

import time
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from worker.core.concurrency import event_loop
from worker.core.concurrency.watchdog import watchdog
from worker.core.errors import DreameryError, Fault, Reaction
from worker.core.job_state import JobState
from worker.core.observability.faults import UnexpectedError
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.accounts import health
from worker.db.credits import balances, daily_credits
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, retry_when_database_unavailable, transaction
from worker.db.jobs import progress_and_leases, state_machine
from worker.db.jobs.claims import Claim
from worker.db.scheduling import account_scoring, unschedulable
from worker.messaging import celery_app
from worker.providers.base import Account, NotSentError
from worker.providers.refusals import RefusedError, Scope
from worker.providers.registry import get_provider
from worker.tasks.stages import cooldowns, worker_keys
from worker.tasks.stages.account_session import SecretLockedError, forget_hosts, prepare_account
from worker.tasks.stages.fail_job import announce, fail_job, record_fault
from worker.tasks.stages.orders import verdicts
from worker.tasks.stages.polling import lost_answers

log = get_logger("handle_refusal")

BACKOFF_SECONDS = (2.0, 10.0, 30.0)
_NO_SUCH_MODEL = (
    "Upstream has no such model for these accounts. Choose another model, or ask an administrator to check the "
    "accounts."
)


def handle_refusal(claim: Claim, error: DreameryError) -> str:
    """Apply a refusal, or a failure to reach upstream, to the rows. Return a line about what was done."""
    reaction = error.kind.reaction
    log.info(
        "submit_refused",
        job_id=str(claim.id),
        account=claim.account.label,
        code=error.code,
        reaction=reaction,
        detail=error.detail,
    )
    if isinstance(error, UnexpectedError):
        return handle_fault(claim, error)
    if error.code == "proxy_unreachable" and not claim.attempts_left:
        return _react(claim, error, reaction)
    if isinstance(error, NotSentError):
        return _retry(claim, error)
    if reaction is Reaction.UNCLEAR and not isinstance(error, RefusedError):
        return _end_unclear(claim, error)
    remedy = None if isinstance(error, RefusedError) else _try_remedy(claim, error)
    if remedy is not None:
        return requeue(claim, error, delay=0.0, reason=remedy)
    return _follow_verdict(claim, error) if isinstance(error, RefusedError) else _react(claim, error, reaction)


def handle_fault(claim: Claim, fault: UnexpectedError) -> str:
    """End the attempt after an unexpected exception. Return a line about what was done.

    Before the call that may cost credits, the job goes back into the queue while it has attempts, and then fails. After
    it, the job is never sent again: the poll looks up its submit key, and a conversation, which has none, ends.
    """
    log.error("attempt_failed", job_id=str(claim.id), fault=fault.detail, sent=fault.sent, trace=fault.frames)
    return _end_unclear(claim, fault) if fault.sent else _retry(claim, fault)


@retry_when_database_unavailable
def _end_unclear(claim: Claim, error: DreameryError) -> str:
    if claim.kind == "chat":
        # A conversation cannot be looked up by key, and jobs that it started upstream may have been charged.
        return fail_claim(claim, DreameryError("stream_broken", detail=error.detail))
    if get_provider(claim.account).capabilities.polling.look_up_after:
        job = lost_answers.LostJob(claim.id, claim.attempt, claim.kind)
        return lost_answers.begin(claim.account, job, actor=_actor(claim.kind), error=error)
    with transaction() as tx:
        progress_and_leases.mark_submit_unclear(tx, job_id=claim.id, attempt=claim.attempt)
        if isinstance(error, UnexpectedError):
            record_fault(tx, [(claim.id, claim.attempt)], error, actor=_actor(claim.kind))
    return f"unclear {claim.id}"


def _leave_to_others(claim: Claim, error: DreameryError) -> str:
    """Put a job back that this worker cannot do, because it lacks the key. That costs the job no attempt."""
    wrong = worker_keys.stop_if_wrong(account=claim.account.label)
    # A worker with the wrong key leaves the account to the others. A secret that only its own key is missing for would
    # be chosen again at once, so that account rests.
    cooldown = 0.0 if wrong else cooldowns.LOCKED_SECONDS
    delay = BACKOFF_SECONDS[0] if wrong else 0.0
    return requeue(claim, error, delay=delay, reason=worker_keys.REASON, cooldown=cooldown)


def _follow_verdict(claim: Claim, error: RefusedError) -> str:
    """Do what an upstream that tells more than a code of the error table asks for."""
    verdict = error.verdict
    if verdict.warns:
        log.warning("operator_action_needed", account=claim.account.label, model=claim.model, refusal=error.name)
    if verdict.reaction is Reaction.GIVE_UP or (verdict.counts and not claim.attempts_left):
        verdicts.apply(claim, error)
        return fail_claim(claim, error)
    if verdict.reaction is Reaction.RETRY_LATER:
        seen = verdicts.count_refusals(claim, error)
        if seen < len(verdict.pauses):
            return requeue(claim, error, delay=verdict.pauses[seen], reason=error.code, counts=verdict.counts)
    avoid = claim.account.id if verdict.scope is Scope.JOB else None
    verdicts.apply(claim, error)
    line = requeue(claim, error, delay=0.0, reason=error.code, avoid=avoid, counts=verdict.counts)
    return f"{line}; {fail_if_unschedulable(claim.id, error=error)}"


def _try_remedy(claim: Claim, error: DreameryError) -> str | None:
    """Remove the cause, so that the same account can try again at once. Return what was done; None = no remedy."""
    if error.code == "upstream_session_expired" and forget_hosts(claim.account):
        return "session moved to another cluster; looked up again"
    if error.code == "insufficient_quota" and refill_credits(claim):
        return "took the daily credits"
    return None


def _react(claim: Claim, error: DreameryError, reaction: Reaction) -> str:
    if isinstance(error, SecretLockedError):
        return _leave_to_others(claim, error)
    if error.code == "storage_unavailable":
        # Our own fault: the account serves other jobs meanwhile, and nothing is counted against it.
        return requeue(claim, error, delay=BACKOFF_SECONDS[-1], reason="our storage does not respond")
    if error.code == "concurrency_limit":
        # The limit is per kind: an account with a video in progress elsewhere can still make images.
        delay = cooldowns.KIND_COOLDOWN_SECONDS[claim.kind]
        return requeue(claim, error, delay=delay, reason=error.code, kind_cooldown=delay)
    if reaction is Reaction.RETRY_LATER:
        delay = cooldowns.COOLDOWN_SECONDS.get(error.code, BACKOFF_SECONDS[0])
        return requeue(claim, error, delay=delay, reason=error.code, cooldown=delay)
    if reaction is Reaction.OTHER_ACCOUNT:
        cooldown = cooldown_after(claim, error)
        line = requeue(claim, error, delay=0.0, reason=error.code, cooldown=cooldown, avoid=claim.account.id)
        return f"{line}; {fail_if_unschedulable(claim.id, error=error)}"
    return fail_claim(claim, error)


def cooldown_after(claim: Claim, error: DreameryError) -> float:
    """Return how many seconds the account cools down after a refusal that concerns it; 0 = not at all."""
    if error.code == "insufficient_quota":
        with transaction() as tx:
            # Upstream gives the same answer when the account may not use the model. The credits, read a moment ago,
            # tell the two cases apart.
            if balances.account_covers_price(tx, claim.id):
                return 0.0
    return cooldowns.cooldown_seconds(error.code, claim.account, datetime.now(UTC))


def _actor(kind: str) -> str:
    return "converse" if kind == "chat" else "submit"


def refill_credits(claim: Claim, account: Account | None = None) -> bool:
    """Read the account's credits and claim the daily ones if none are left. Return whether it gained any.

    Never raises upstream's errors.
    """
    offered = get_provider(claim.account).capabilities
    if offered.balance is None:
        return False
    gained = 0
    try:
        account = account or prepare_account(claim.account)
        watchdog.renew()
        asked_at = time.monotonic()
        left = event_loop.run(offered.balance.fetch_credits(account)).total
        watchdog.renew()
        if left == 0 and offered.daily_credits is not None and _claim_daily_credits(claim.account.id):
            gained = event_loop.run(offered.daily_credits.receive_credits(account))
            with transaction() as tx:
                daily_credits.record_result(tx, claim.account.id, gained=gained)
    except DreameryError as error:
        log.info("refill_failed", account=claim.account.label, code=error.code)
        return False
    except DATABASE_UNAVAILABLE_ERRORS:
        raise
    except BaseException as error:  # noqa: BLE001 - without a refill the refusal is handled as usual
        fault = UnexpectedError(error)
        log.error("refill_failed", account=claim.account.label, code=fault.detail, trace=fault.frames)  # noqa: TRY400
        return False
    with transaction() as tx:
        balances.record_credits(tx, claim.account.id, left + gained, seconds_ago=time.monotonic() - asked_at)
    return gained > 0


def _claim_daily_credits(account_id: UUID) -> bool:
    """Commit the claim on today's credits before the call. Return False if it exists already or is not allowed."""
    with transaction() as tx:
        return daily_credits.claim_when_empty(tx, account_id, enabled_by_default=get_settings().daily_receive != "off")


def _retry(claim: Claim, error: DreameryError) -> str:
    if not claim.attempts_left:
        return fail_claim(claim, error)
    if error.code == "proxy_unreachable":
        # Only the proxy of this account failed: the account cools down, and another account may claim the job at once.
        cooldown = cooldowns.COOLDOWN_SECONDS[error.code]
        return requeue(claim, error, delay=0.0, reason=error.code, counts=True, cooldown=cooldown)
    delay = BACKOFF_SECONDS[min(claim.attempt, len(BACKOFF_SECONDS)) - 1]
    return requeue(claim, error, delay=delay, reason=error.code, counts=True)


@retry_when_database_unavailable
def requeue(
    claim: Claim,
    error: DreameryError,
    *,
    delay: float,
    reason: str,
    cooldown: float = 0.0,
    kind_cooldown: float = 0.0,
    avoid: UUID | None = None,
    counts: bool = False,
) -> str:
    """Put the job back into the queue. A job whose cancellation was requested is cancelled instead.

    `cooldown` = seconds for the whole account, `kind_cooldown` = seconds for its jobs of this kind only.
    """
    with transaction() as tx:
        if cooldown:
            health.cool_down(tx, claim.account.id, seconds=cooldown, code=error.code)
        if kind_cooldown:
            health.cool_down_kind(tx, claim.account.id, claim.kind, seconds=kind_cooldown)
        row = state_machine.requeue(
            tx,
            job_id=claim.id,
            attempt=claim.attempt,
            actor=_actor(claim.kind),
            reason=reason,
            code=error.code,
            detail=error.detail,
            account=claim.account.label,
            delay=delay,
            avoid=avoid,
            counts=counts,
        )
        if row is not None:
            if reason == error.code:
                account_scoring.record_outcome(tx, claim.account.id, claim.model, code=error.code)
            announce(tx, row)
            if delay == 0.0:
                tx.on_commit(partial(celery_app.enqueue_claim, claim.kind, job_id=claim.id))
    return f"requeued {claim.id}: {reason}"


@retry_when_database_unavailable
def fail_claim(claim: Claim, error: DreameryError) -> str:
    """Fail the claimed job. Return a line about it."""
    with transaction() as tx:
        row = fail_job(
            tx,
            job_id=claim.id,
            attempt=claim.attempt,
            code=error.code,
            message=error.message,
            actor=_actor(claim.kind),
            detail=error.detail,
            account=claim.account.label,
        )
        if row is not None:
            # The next job takes the slot at once.
            tx.on_commit(partial(celery_app.enqueue_claim, claim.kind, account_id=claim.account.id))
    return f"failed {claim.id}: {error.code}"


@retry_when_database_unavailable
def fail_if_unschedulable(job_id: UUID, *, error: DreameryError | None = None) -> str:
    """Fail a queued job that no account will take, with the last refusal if that is about the account."""
    with transaction() as tx:
        code = unschedulable.unschedulable_reason(tx, job_id)
        if code is None:
            return "waits for a slot" if error is None else "another account may take it"
        # The name of the model was checked when the job was accepted: what is wrong is the account, not the request.
        message = _NO_SUCH_MODEL if code == "model_not_found" else None
        failure = error if error is not None and error.kind.fault is Fault.ACCOUNT else DreameryError(code, message)
        fail_job(
            tx,
            job_id=job_id,
            attempt=None,
            code=failure.code,
            message=failure.message,
            actor="submit",
            from_states=(JobState.QUEUED,),
        )
    return f"failed {job_id}: {failure.code}"
