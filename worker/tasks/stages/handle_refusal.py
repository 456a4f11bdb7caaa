"""When upstream says no to a claimed job, or cannot be reached: wait, try another account, or give up (error table).

Part of the steps that claim a job and make one call for it (submit, converse): they hand over the claim and the error.
"""

import time
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from worker.core.errors import DreameryError, Fault, Reaction
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.core.watchdog import watchdog
from worker.db.accounts import health
from worker.db.credits import balances, daily_credits
from worker.db.engine import retry_when_database_away, transaction
from worker.db.jobs import progress_and_leases, state_machine
from worker.db.scheduling import account_scoring, unschedulable
from worker.messaging import celery_app, pubsub
from worker.providers.base import Account, NotSentError
from worker.providers.registry import get_provider
from worker.tasks.stages import cooldowns, upload_references
from worker.tasks.stages.account_session import NotServableError, forget_hosts, located

log = get_logger("refusals")

BACKOFF_SECONDS = (2.0, 10.0, 30.0)


def refused(claim: state_machine.Claim, error: DreameryError) -> str:
    """Carry a refusal, or a failure to reach upstream, into the rows; a line about what was done."""
    reaction = error.kind.reaction
    log.info(
        "submit_refused",
        job_id=str(claim.id),
        account=claim.account.label,
        code=error.code,
        reaction=reaction,
        detail=error.detail,
    )
    if error.code == "proxy_unreachable" and not claim.attempts_left:
        return _react(claim, error, reaction)
    if isinstance(error, NotSentError | upload_references.NotFetchedYetError):
        return _retry(claim, error)
    if reaction is Reaction.UNCLEAR and claim.kind == "chat":
        # A conversation cannot be asked for by key, and what it started upstream may have been paid.
        return fail(claim, DreameryError("stream_broken", detail=error.detail))
    if reaction is Reaction.UNCLEAR:
        with transaction() as tx:
            progress_and_leases.note_unclear(tx, job_id=claim.id, attempt=claim.attempt)
        return f"unclear {claim.id}"
    remedy = _remedied(claim, error)
    if remedy is not None:
        return requeue(claim, error, delay=0.0, reason=remedy)
    return _react(claim, error, reaction)


def _remedied(claim: state_machine.Claim, error: DreameryError) -> str | None:
    """What was done about a refusal so that the same account can be asked again at once; None = nothing helps."""
    if error.code == "upstream_session_expired" and forget_hosts(claim.account):
        return "session moved to another cluster; looked up again"
    if error.code == "insufficient_quota" and refill(claim):
        return "took the daily credits"
    return None


def _react(claim: state_machine.Claim, error: DreameryError, reaction: Reaction) -> str:
    if error.code == "concurrency_limit":
        # Says nothing about other kinds: an account that draws a video elsewhere goes on making pictures.
        delay = cooldowns.FULL_SECONDS[claim.kind]
        return requeue(claim, error, delay=delay, reason=error.code, full=delay)
    if reaction is Reaction.RETRY_LATER:
        delay = cooldowns.REST_SECONDS.get(error.code, BACKOFF_SECONDS[0])
        return requeue(claim, error, delay=delay, reason=error.code, rest=delay)
    if reaction is Reaction.OTHER_ACCOUNT:
        rest = rest_before_next(claim, error)
        line = requeue(claim, error, delay=0.0, reason=error.code, rest=rest, avoid=claim.account.id)
        return f"{line}; {give_up_if_hopeless(claim.id, error=error)}"
    return fail(claim, error)


def rest_before_next(claim: state_machine.Claim, error: DreameryError) -> float:
    """How long the account rests after a refusal that is about the account; 0 = not at all."""
    if isinstance(error, NotServableError):
        return 0.0
    if error.code == "insufficient_quota":
        with transaction() as tx:
            # Upstream says the same to who may not use the model; read a moment ago, the credits tell which it is.
            if balances.covers(tx, claim.id):
                return 0.0
    return cooldowns.rest_seconds(error.code, claim.account.region, datetime.now(UTC))


def _actor(kind: str) -> str:
    return "converse" if kind == "chat" else "submit"


def refill(claim: state_machine.Claim, account: Account | None = None) -> bool:
    """Read the account's credits and take the daily ones when there are none; whether it gained some. Never fails."""
    provider = get_provider()
    gained = 0
    try:
        account = account or located(claim.account)
        watchdog.renew()
        asked_at = time.monotonic()
        left = provider.credits(account).total
        watchdog.renew()
        if left == 0 and _may_receive(claim.account.id):
            gained = provider.receive_credits(account)
            with transaction() as tx:
                daily_credits.note_answer(tx, claim.account.id, gained=gained)
    except DreameryError as error:
        log.info("refill_failed", account=claim.account.label, code=error.code)
        return False
    with transaction() as tx:
        balances.note_credits(tx, claim.account.id, left + gained, seconds_ago=time.monotonic() - asked_at)
    return gained > 0


def _may_receive(account_id: UUID) -> bool:
    """Take the account's day, before the call; False when it was taken already, or is not to be."""
    with transaction() as tx:
        return daily_credits.claim_empty(tx, account_id, everybody=get_settings().daily_receive != "off")


def _retry(claim: state_machine.Claim, error: DreameryError) -> str:
    if not claim.attempts_left:
        return fail(claim, error)
    if error.code == "proxy_unreachable":
        # Only this account's way out is blocked: it pauses, and another one may take the job at once.
        rest = cooldowns.REST_SECONDS[error.code]
        return requeue(claim, error, delay=0.0, reason=error.code, counts=True, rest=rest)
    delay = BACKOFF_SECONDS[min(claim.attempt, len(BACKOFF_SECONDS)) - 1]
    return requeue(claim, error, delay=delay, reason=error.code, counts=True)


@retry_when_database_away
def requeue(
    claim: state_machine.Claim,
    error: DreameryError,
    *,
    delay: float,
    reason: str,
    rest: float = 0.0,
    full: float = 0.0,
    avoid: UUID | None = None,
    counts: bool = False,
) -> str:
    """Back into the queue; a job that somebody wished to cancel is cancelled instead.

    `rest` = seconds for the whole account, `full` = seconds for its jobs of this kind only.
    """
    with transaction() as tx:
        if rest:
            health.rest(tx, claim.account.id, seconds=rest, code=error.code)
        if full:
            health.rest_kind(tx, claim.account.id, claim.kind, seconds=full)
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
                account_scoring.note_outcome(tx, claim.account.id, claim.model, code=error.code)
            tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
            if delay == 0.0:
                tx.on_commit(partial(celery_app.nudge_claim, claim.kind, job_id=claim.id))
    return f"requeued {claim.id}: {reason}"


@retry_when_database_away
def fail(claim: state_machine.Claim, error: DreameryError) -> str:
    """The job has failed."""
    with transaction() as tx:
        row = state_machine.mark_failed(
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
            tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
            # A job that was refused for its content or parameters leaves its slot to the next one at once.
            tx.on_commit(partial(celery_app.nudge_claim, claim.kind, account_id=claim.account.id))
    return f"failed {claim.id}: {error.code}"


@retry_when_database_away
def give_up_if_hopeless(job_id: UUID, *, error: DreameryError | None = None) -> str:
    """Fail a queued job that none of its accounts will take; it is told the last refusal."""
    with transaction() as tx:
        code = unschedulable.hopeless(tx, job_id)
        if code is None:
            return "waits for a slot" if error is None else "another account may take it"
        told = error if error is not None and error.kind.fault is Fault.ACCOUNT else DreameryError(code)
        row = state_machine.mark_failed(
            tx,
            job_id=job_id,
            attempt=None,
            code=told.code,
            message=told.message,
            actor="submit",
            from_states=("queued",),
        )
        if row is not None:
            tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
    return f"failed {job_id}: {told.code}"
