"""Submit one job: claim it with an account slot, order it upstream once, note what is known afterwards.

The submit key is committed by the claim, before the call that carries it; one key is sent at most once (I4).
"""

import time
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from uuid import UUID

from worker.bus import events, queue
from worker.core.errors import DreameryError, Fault, Reaction
from worker.core.log import get_logger
from worker.core.settings import get_settings
from worker.core.watchdog import watchdog
from worker.db import accounts, jobs, notes, reports
from worker.db.engine import retry_when_database_away, transaction
from worker.providers.provider import ImageOrder, NotSentError, Submitted
from worker.providers.registry import get_provider
from worker.steps import references
from worker.steps.sessions import NotServableError, forget_hosts, located

log = get_logger("submit")

MOST_PER_MESSAGE = 8

_BACKOFF_SECONDS = (2.0, 10.0, 30.0)

# How long an account rests after a refusal that is about the account, not the job. Codes that are not here (no right to
# a model, consent) say nothing about its other jobs, so they never put it to rest. An expired login is checked by the
# next job after its rest: being refused costs nothing.
REST_SECONDS = {
    "rate_limit_exceeded": 15.0,
    "concurrency_limit": 5.0,
    "proxy_unreachable": 10.0,
    "upstream_session_expired": 300.0,
    "insufficient_quota": 600.0,
    "upstream_risk_control": 7200.0,
}
# These end with the day where the account lives; upstream's clock may be a little behind ours.
_UNTIL_TOMORROW = frozenset({"daily_limit_reached", "account_limited"})
_CHINA = timezone(timedelta(hours=8))
_CLOCK_SLACK = timedelta(minutes=5)


def rest_seconds(code: str, region: str, now: datetime) -> float:
    """How long an account of that region rests after this refusal; 0 = not at all."""
    if code not in _UNTIL_TOMORROW:
        return REST_SECONDS.get(code, 0.0)
    here = now.astimezone(_CHINA if region == "cn" else UTC)
    midnight = here.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return (midnight + _CLOCK_SLACK - here).total_seconds()


def submit_waiting(*, job_id: UUID | None = None, account_id: UUID | None = None) -> str:
    """Submit one job after the other on the nudged account while it has slots, pace and waiting jobs.

    One message may stand for many jobs that way; each is still claimed and ordered for itself.
    """
    line, account_id = _submit_one(job_id, account_id)
    count = 1
    while account_id is not None:
        if count == MOST_PER_MESSAGE:
            # Others may wait for this thread; what is left here queues up behind them.
            queue.nudge_submit(account_id=account_id)
            break
        watchdog.renew()
        more, account_id = _submit_one(None, account_id)
        if account_id is not None:
            line, count = more, count + 1
    return line if count == 1 else f"{line} (and {count - 1} before)"


def submit(*, job_id: UUID | None = None, account_id: UUID | None = None) -> str:
    """Submit the oldest job that the given account (or the best account of the given job) may run."""
    return _submit_one(job_id, account_id)[0]


def _submit_one(job_id: UUID | None, account_id: UUID | None) -> tuple[str, UUID | None]:
    """What happened, and the account that was used, if any."""
    claim = _claim(job_id, account_id)
    if claim is None:
        return _give_up_if_hopeless(job_id) if job_id else "nothing to submit", None
    try:
        submitted = _order(claim)
    except references.ClaimLostError:
        # A no-op for a job that somebody else has; one whose caller no longer wants it is cancelled here.
        return _requeue(claim, NotSentError(), delay=0.0, reason="claim lost"), claim.account.id
    except DreameryError as error:
        return _refused(claim, error), claim.account.id
    _accepted(claim, submitted)
    return f"submitted {claim.id} on {claim.account.label}", claim.account.id


@retry_when_database_away
def _claim(job_id: UUID | None, account_id: UUID | None) -> jobs.Claim | None:
    with transaction() as tx:
        target = account_id or (accounts.ready_for_job(tx, job_id) if job_id else None)
        return jobs.claim_next(tx, account_id=target) if target else None


def _order(claim: jobs.Claim) -> Submitted:
    """The one call that may cost credits, after the lookups and uploads it needs."""
    provider = get_provider()
    account = located(claim.account)
    claim, brought = references.bring(claim, account)
    order = ImageOrder(model=claim.model, **claim.params["order"], references=brought)
    watchdog.renew()
    if time.monotonic() + get_settings().call_timeout_seconds > claim.until:
        # This process stood still (a frozen container, a long swap): by now another may have ordered the job.
        raise NotSentError("the claim is too old to be ordered")
    return provider.submit_image(account, order, submit_key=str(claim.submit_key))


@retry_when_database_away
def _accepted(claim: jobs.Claim, submitted: Submitted) -> None:
    with transaction() as tx:
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


def _refused(claim: jobs.Claim, error: DreameryError) -> str:
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
    if isinstance(error, NotSentError | references.NotFetchedYetError):
        return _retry(claim, error)
    if reaction is Reaction.UNCLEAR:
        with transaction() as tx:
            notes.note_unclear(tx, job_id=claim.id, attempt=claim.attempt)
        return f"unclear {claim.id}"
    remedy = _remedied(claim, error)
    if remedy is not None:
        return _requeue(claim, error, delay=0.0, reason=remedy)
    return _react(claim, error, reaction)


def _remedied(claim: jobs.Claim, error: DreameryError) -> str | None:
    """What was done about a refusal so that the same account can be asked again at once; None = nothing helps."""
    if error.code == "upstream_session_expired" and forget_hosts(claim.account):
        return "session moved to another cluster; looked up again"
    if error.code == "insufficient_quota" and _refilled(claim):
        return "took the daily credits"
    return None


def _react(claim: jobs.Claim, error: DreameryError, reaction: Reaction) -> str:
    if reaction is Reaction.RETRY_LATER:
        delay = REST_SECONDS.get(error.code, _BACKOFF_SECONDS[0])
        return _requeue(claim, error, delay=delay, reason=error.code, rest=delay)
    if reaction is Reaction.OTHER_ACCOUNT:
        rest = rest_seconds(error.code, claim.account.region, datetime.now(UTC))
        rest = 0.0 if isinstance(error, NotServableError) else rest
        line = _requeue(claim, error, delay=0.0, reason=error.code, rest=rest, avoid=claim.account.id)
        return f"{line}; {_give_up_if_hopeless(claim.id, error=error)}"
    return _fail(claim, error)


def _refilled(claim: jobs.Claim) -> bool:
    """Whether the account, found without credits, has just been given its daily ones."""
    if not get_settings().daily_receive:
        return False
    provider, account = get_provider(), located(claim.account)
    try:
        watchdog.renew()
        left = provider.credits(account).total
        watchdog.renew()
        gained = provider.receive_credits(account) if left == 0 else 0
    except DreameryError as error:
        log.info("refill_failed", account=claim.account.label, code=error.code)
        return False
    with transaction() as tx:
        accounts.store_credits(tx, claim.account.id, left + gained)
    return gained > 0


def _retry(claim: jobs.Claim, error: DreameryError) -> str:
    if not claim.attempts_left:
        return _fail(claim, error)
    if error.code == "proxy_unreachable":
        # Only this account's way out is blocked: it pauses, and another one may take the job at once.
        rest = REST_SECONDS[error.code]
        return _requeue(claim, error, delay=0.0, reason=error.code, counts=True, rest=rest)
    delay = _BACKOFF_SECONDS[min(claim.attempt, len(_BACKOFF_SECONDS)) - 1]
    return _requeue(claim, error, delay=delay, reason=error.code, counts=True)


@retry_when_database_away
def _requeue(
    claim: jobs.Claim,
    error: DreameryError,
    *,
    delay: float,
    reason: str,
    rest: float = 0.0,
    avoid: UUID | None = None,
    counts: bool = False,
) -> str:
    with transaction() as tx:
        if rest:
            accounts.rest(tx, claim.account.id, seconds=rest, code=error.code)
        row = jobs.requeue(
            tx,
            job_id=claim.id,
            attempt=claim.attempt,
            actor="submit",
            reason=reason,
            code=error.code,
            detail=error.detail,
            account=claim.account.label,
            delay=delay,
            avoid=avoid,
            counts=counts,
        )
        if row is not None:
            tx.on_commit(partial(events.announce, row.id, row.state, row.event_seq))
            if delay == 0.0:
                tx.on_commit(partial(queue.nudge_submit, job_id=claim.id))
    return f"requeued {claim.id}: {reason}"


@retry_when_database_away
def _fail(claim: jobs.Claim, error: DreameryError) -> str:
    with transaction() as tx:
        row = jobs.mark_failed(
            tx,
            job_id=claim.id,
            attempt=claim.attempt,
            code=error.code,
            message=error.message,
            actor="submit",
            detail=error.detail,
        )
        if row is not None:
            tx.on_commit(partial(events.announce, row.id, row.state, row.event_seq))
            # A job that was refused for its content or parameters leaves its slot to the next one at once.
            tx.on_commit(partial(queue.nudge_submit, account_id=claim.account.id))
    return f"failed {claim.id}: {error.code}"


@retry_when_database_away
def _give_up_if_hopeless(job_id: UUID, *, error: DreameryError | None = None) -> str:
    """Fail a queued job that none of its accounts will take; it is told the last refusal."""
    with transaction() as tx:
        code = reports.hopeless(tx, job_id)
        if code is None:
            return "waits for a slot" if error is None else "another account may take it"
        told = error if error is not None and error.kind.fault is Fault.ACCOUNT else DreameryError(code)
        row = jobs.mark_failed(
            tx,
            job_id=job_id,
            attempt=None,
            code=told.code,
            message=told.message,
            actor="submit",
            from_states=("queued",),
        )
        if row is not None:
            tx.on_commit(partial(events.announce, row.id, row.state, row.event_seq))
    return f"failed {job_id}: {told.code}"
