"""Submit one job: claim it with an account slot, order it upstream once, note what is known afterwards.

The submit key is committed by the claim, before the call that carries it; one key is sent at most once (I4).
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from worker.bus import events, queue
from worker.core.crypto import SecretUnreadableError, open_secret
from worker.core.errors import DreameryError, Fault, Reaction
from worker.core.log import get_logger
from worker.core.settings import get_settings
from worker.core.watchdog import watchdog
from worker.db import accounts, jobs, notes, reports
from worker.db.engine import Transaction, retry_when_database_away, transaction
from worker.providers.provider import Account, NotSentError, Submitted
from worker.providers.registry import get_provider
from worker.steps import orders, references, rests

log = get_logger("submit")

MOST_PER_MESSAGE = 8

_BACKOFF_SECONDS = (2.0, 10.0, 30.0)
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
    account = _located(claim)
    claim, brought = references.bring(claim, account)
    watchdog.renew()
    if time.monotonic() + get_settings().call_timeout_seconds > claim.until:
        # This process stood still (a frozen container, a long swap): by now another may have ordered the job.
        raise NotSentError("the claim is too old to be ordered")
    if claim.kind == "video":
        return provider.submit_video(account, orders.video_order(claim, brought), submit_key=str(claim.submit_key))
    return provider.submit_image(account, orders.image_order(claim, brought), submit_key=str(claim.submit_key))


def _located(claim: jobs.Claim) -> Account:
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
    if error.code == "upstream_session_expired" and _moved(claim):
        return "session moved to another cluster; looked up again"
    if error.code == "insufficient_quota" and _refilled(claim):
        return "took the daily credits"
    return None


def _react(claim: jobs.Claim, error: DreameryError, reaction: Reaction) -> str:
    if error.code == "concurrency_limit":
        # Says nothing about other kinds: an account that draws a video elsewhere goes on making pictures.
        delay = rests.FULL_SECONDS[claim.kind]
        return _requeue(claim, error, delay=delay, reason=error.code, full=delay)
    if reaction is Reaction.RETRY_LATER:
        delay = rests.REST_SECONDS.get(error.code, _BACKOFF_SECONDS[0])
        return _requeue(claim, error, delay=delay, reason=error.code, rest=delay)
    if reaction is Reaction.OTHER_ACCOUNT:
        rest = rests.rest_seconds(error.code, claim.account.region, datetime.now(UTC))
        rest = 0.0 if isinstance(error, NotServableError) else rest
        line = _requeue(claim, error, delay=0.0, reason=error.code, rest=rest, avoid=claim.account.id)
        return f"{line}; {_give_up_if_hopeless(claim.id, error=error)}"
    return _fail(claim, error)


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
    provider, account = get_provider(), _located(claim)
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
    full: float = 0.0,
    avoid: UUID | None = None,
    counts: bool = False,
) -> str:
    with transaction() as tx:
        if rest:
            accounts.rest(tx, claim.account.id, seconds=rest, code=error.code)
        if full:
            accounts.rest_kind(tx, claim.account.id, claim.kind, seconds=full)
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
            account=claim.account.label,
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
