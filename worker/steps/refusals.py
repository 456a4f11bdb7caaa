"""When upstream says no to a claimed job, or cannot be reached: wait, try another account, or give up (error table).

Part of the steps that claim a job and make one call for it (submit, converse): they hand over the claim and the error.
"""

from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from uuid import UUID

from worker.bus import events, queue
from worker.core.crypto import SecretUnreadableError, open_secret
from worker.core.errors import DreameryError, Fault, Reaction
from worker.core.log import get_logger
from worker.core.settings import get_settings
from worker.core.watchdog import watchdog
from worker.db import accounts, jobs, notes, reports
from worker.db.engine import retry_when_database_away, transaction
from worker.providers.provider import Account, NotSentError
from worker.providers.registry import get_provider
from worker.steps import references

log = get_logger("refusals")

BACKOFF_SECONDS = (2.0, 10.0, 30.0)

# How long an account rests after a refusal that is about the account, not the job. Codes that are not here (no right to
# a model, consent) say nothing about its other jobs, so they never put it to rest. An expired login is checked by the
# next job after its rest: being refused costs nothing.
REST_SECONDS = {
    "rate_limit_exceeded": 15.0,
    "concurrency_limit": 5.0,
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


def located(claim: jobs.Claim) -> Account:
    """The account with its session opened and, for region `auto`, its hosts; they are looked up when not known."""
    row = claim.account
    try:
        session = open_secret(row.secret, context=row.lookup_context)
    except SecretUnreadableError:
        message = "The session of this account cannot be opened with DREAMERY_MASTER_KEY. Add the account again."
        raise NotServableError(message) from None
    cluster = row.cluster
    stale = row.cluster_age_seconds is None or row.cluster_age_seconds > get_settings().region_cache_seconds
    account = Account(id=row.id.hex, region=row.region, session=session, cluster=cluster)
    if row.region == "auto" and (cluster is None or stale):
        try:
            cluster = get_provider().locate(account)
        except DreameryError as error:
            # Whatever went wrong, nothing was ordered yet.
            if error.code == "upstream_unreachable":
                raise NotSentError(error.detail) from error
            raise
        with transaction() as tx:
            accounts.store_cluster(tx, row.id, cluster)
        account = Account(id=row.id.hex, region=row.region, session=session, cluster=cluster)
    return account


class NotServableError(DreameryError):
    """This account cannot be used at all; another may."""

    def __init__(self, message: str) -> None:
        super().__init__("upstream_session_expired", message)


def refused(claim: jobs.Claim, error: DreameryError) -> str:
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
    if isinstance(error, NotSentError | references.NotFetchedYetError):
        return _retry(claim, error)
    if reaction is Reaction.UNCLEAR and claim.kind == "chat":
        # A conversation cannot be asked for by key, and what it started upstream may have been paid.
        return fail(claim, DreameryError("stream_broken", detail=error.detail))
    if reaction is Reaction.UNCLEAR:
        with transaction() as tx:
            notes.note_unclear(tx, job_id=claim.id, attempt=claim.attempt)
        return f"unclear {claim.id}"
    remedy = _remedied(claim, error)
    if remedy is not None:
        return requeue(claim, error, delay=0.0, reason=remedy)
    return _react(claim, error, reaction)


def _remedied(claim: jobs.Claim, error: DreameryError) -> str | None:
    """What was done about a refusal so that the same account can be asked again at once; None = nothing helps."""
    if error.code == "upstream_session_expired" and _moved(claim):
        return "session moved to another cluster; looked up again"
    if error.code == "insufficient_quota" and _refilled(claim):
        return "took the daily credits"
    return None


def _react(claim: jobs.Claim, error: DreameryError, reaction: Reaction) -> str:
    if reaction is Reaction.RETRY_LATER:
        delay = REST_SECONDS.get(error.code, BACKOFF_SECONDS[0])
        return requeue(claim, error, delay=delay, reason=error.code, rest=delay)
    if reaction is Reaction.OTHER_ACCOUNT:
        rest = rest_before_next(claim, error)
        line = requeue(claim, error, delay=0.0, reason=error.code, rest=rest, avoid=claim.account.id)
        return f"{line}; {give_up_if_hopeless(claim.id, error=error)}"
    return fail(claim, error)


def rest_before_next(claim: jobs.Claim, error: DreameryError) -> float:
    """How long the account rests after a refusal that is about the account; 0 = not at all."""
    if isinstance(error, NotServableError):
        return 0.0
    return rest_seconds(error.code, claim.account.region, datetime.now(UTC))


def _actor(kind: str) -> str:
    return "converse" if kind == "chat" else "submit"


def _moved(claim: jobs.Claim) -> bool:
    """1015 on hosts looked up earlier may only mean that the session moved: forget them and look again, once."""
    row = claim.account
    if row.region != "auto" or row.cluster is None:
        return False
    with transaction() as tx:
        accounts.store_cluster(tx, row.id, None)
    return True


def _refilled(claim: jobs.Claim) -> bool:
    """Whether the account, found without credits, has just been given its daily ones."""
    if not get_settings().daily_receive:
        return False
    return refill(claim, located(claim))


def refill(claim: jobs.Claim, account: Account) -> bool:
    """Read the account's credits and take the daily ones when there are none; whether it gained some. Never fails."""
    provider = get_provider()
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
        return fail(claim, error)
    delay = BACKOFF_SECONDS[min(claim.attempt, len(BACKOFF_SECONDS)) - 1]
    return requeue(claim, error, delay=delay, reason=error.code, counts=True)


@retry_when_database_away
def requeue(
    claim: jobs.Claim,
    error: DreameryError,
    *,
    delay: float,
    reason: str,
    rest: float = 0.0,
    avoid: UUID | None = None,
    counts: bool = False,
) -> str:
    """Back into the queue; a job that somebody wished to cancel is cancelled instead."""
    with transaction() as tx:
        if rest:
            accounts.rest(tx, claim.account.id, seconds=rest, code=error.code)
        row = jobs.requeue(
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
            tx.on_commit(partial(events.announce, row.id, row.state, row.event_seq))
            if delay == 0.0:
                tx.on_commit(partial(queue.nudge_claim, claim.kind, job_id=claim.id))
    return f"requeued {claim.id}: {reason}"


@retry_when_database_away
def fail(claim: jobs.Claim, error: DreameryError) -> str:
    """The job has failed."""
    with transaction() as tx:
        row = jobs.mark_failed(
            tx,
            job_id=claim.id,
            attempt=claim.attempt,
            code=error.code,
            message=error.message,
            actor=_actor(claim.kind),
            detail=error.detail,
        )
        if row is not None:
            tx.on_commit(partial(events.announce, row.id, row.state, row.event_seq))
            # A job that was refused for its content or parameters leaves its slot to the next one at once.
            tx.on_commit(partial(queue.nudge_claim, claim.kind, account_id=claim.account.id))
    return f"failed {claim.id}: {error.code}"


@retry_when_database_away
def give_up_if_hopeless(job_id: UUID, *, error: DreameryError | None = None) -> str:
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
