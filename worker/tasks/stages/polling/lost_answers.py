"""Jobs whose submit was not answered: looked for upstream, sent again, or given up. Part of poll and submit.

This is for an upstream that must be searched (`PollRules.look_up_after`). A job is sent again once at most: if upstream
proved that it does not have it, or if its caller asked for that. Otherwise it ends as `submit_unclear`, because it may
have been charged.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from worker.core.concurrency.event_loop import in_thread
from worker.core.errors import DreameryError
from worker.core.job_state import JobState
from worker.core.observability import metrics
from worker.core.observability.faults import UnexpectedError
from worker.core.observability.job_context import job_context
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.accounts import lost_answers
from worker.db.accounts.accounts import AccountRow
from worker.db.accounts.polling import OpenJob
from worker.db.engine import Transaction, retry_when_database_unavailable, transaction
from worker.db.jobs import state_machine
from worker.messaging import celery_app
from worker.providers.base import Found, LookupResult, OpenOrder
from worker.providers.registry import get_provider, required
from worker.tasks.stages.account_session import call_upstream_async
from worker.tasks.stages.fail_job import announce, fail_job, record_fault
from worker.tasks.stages.orders import immediate_images
from worker.tasks.stages.polling.claimed_poll import ClaimedPoll

log = get_logger("lost_answers")

# After a search that failed. If all of them fail for so long, nothing will be known of the job.
_RETRY_SECONDS, _MOST_SECONDS = 10.0, 3600.0
_USUAL_GRACE_SECONDS = 30.0
# Ids of other jobs matter from so long before the claim on.
_OWNED_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class LostJob:
    """A job whose submit was not answered."""

    id: UUID
    attempt: int
    kind: str


def order_of(job: OpenJob) -> OpenOrder:
    """Return a job as its provider knows it."""
    return OpenOrder(
        str(job.submit_key), job.upstream_id, job.kind, job.model, job.claimed_at or 0.0, job.order or {}, job.hint
    )


@retry_when_database_unavailable
def begin(account: AccountRow, job: LostJob, *, actor: str, error: DreameryError | None = None) -> str:
    """The answer to a submit was lost: search for the job later, or end it if it cannot be found."""
    offered = get_provider(account).capabilities
    if job.kind == "image" and immediate_images.finish_arrived(
        account, job_id=job.id, attempt=job.attempt, actor=actor
    ):
        return f"partial {job.id}"
    with transaction() as tx:
        if isinstance(error, UnexpectedError):
            record_fault(tx, [(job.id, job.attempt)], error, actor=actor)
        if offered.lookup is None or not offered.lookup.can_look_up(job.kind):
            return _give_up(tx, account, job, actor=actor)
        first = _looks(account)[0]
        row = lost_answers.begin(tx, job_id=job.id, attempt=job.attempt, seconds=first, actor=actor)
        if row is not None:
            announce(tx, row)
    return f"unclear {job.id}"


async def find(claimed: ClaimedPoll) -> set[UUID]:
    """Search for the lost jobs of the account that are due. Return those that left their slots."""
    left: set[UUID] = set()
    for job in claimed.lost:
        with job_context("look_up", job.id, job.origin):
            wait = await _find_one(claimed.account, job)
        if wait is None:
            left.add(job.id)
        else:
            claimed.look_in = wait if claimed.look_in is None else min(wait, claimed.look_in)
    return left


async def _find_one(account: AccountRow, job: OpenJob) -> float | None:
    """Search for one job, if that is due. Return the seconds to the next poll, None if it left its slot."""
    lost = LostJob(job.id, job.attempt, job.kind)
    if job.unclear_for is None:
        # Its process died during the call, or before it.
        line = await in_thread(partial(begin, account, lost, actor="poll"))
        return _RETRY_SECONDS if line.startswith("unclear") else None
    if job.due_in > 0 and job.hint is None:
        return job.due_in
    try:
        result = await _look_up(account, job)
    except DreameryError as error:
        log.warning("look_up_failed", account=account.label, code=error.code, detail=error.detail)
        if job.unclear_for < _MOST_SECONDS:
            return _RETRY_SECONDS
        result = LookupResult(Found.UNKNOWN)
    if result.found is Found.FOUND and result.record is not None:
        await in_thread(_adopt, account, job, result)
        return 0.0
    after = next((one for one in _looks(account) if one > job.unclear_for), None)
    if after is None:
        return await in_thread(_conclude, account, lost, result.found)
    await in_thread(_look_again, job, after)
    return max(after - job.unclear_for, 0.0)


def _looks(account: AccountRow) -> list[float]:
    """Return when to search, in seconds after the answer was lost. The grace period of the settings scales them."""
    scale = get_settings().unclear_grace_seconds / _USUAL_GRACE_SECONDS
    return [scale * one for one in get_provider(account).capabilities.polling.look_up_after]


async def _look_up(account: AccountRow, job: OpenJob) -> LookupResult:
    order, lookup = order_of(job), required(get_provider(account).capabilities.lookup)
    owned = await in_thread(_owned_ids, account.id, order.claimed_at)
    return await call_upstream_async(account, lambda ready: lookup.look_up(ready, order, owned=owned))


def _owned_ids(account_id: UUID, claimed_at: float) -> set[str]:
    since = datetime.fromtimestamp(max(claimed_at - _OWNED_SECONDS, 0.0), UTC)
    with transaction() as tx:
        return lost_answers.owned_ids(tx, account_id, since=since)


@retry_when_database_unavailable
def _adopt(account: AccountRow, job: OpenJob, result: LookupResult) -> None:
    """Go on with the job that upstream has. The next poll asks for it like for any other."""
    if result.record is None:
        return
    with transaction() as tx:
        row = state_machine.mark_running(
            tx, job_id=job.id, attempt=job.attempt, upstream_id=result.record.upstream_id, actor="poll"
        )
        if row is None:
            return
        log.info("submit_found", account=account.label, others=len(result.more))
        announce(tx, row)
        if result.more:
            doubt_charge(tx, account, job.id, detail=f"also: {', '.join(result.more)[:300]}")


@retry_when_database_unavailable
def _look_again(job: OpenJob, after: float) -> None:
    with transaction() as tx:
        lost_answers.look_again(tx, job_id=job.id, attempt=job.attempt, after=after)


@retry_when_database_unavailable
def _conclude(account: AccountRow, job: LostJob, found: Found) -> None:
    with transaction() as tx:
        if found is not Found.ABSENT:
            _give_up(tx, account, job, actor="poll")
            return
        known = lost_answers.lock_unclear(tx, job_id=job.id, attempt=job.attempt)
        if known is None:
            return
        if known.cancel_requested or (known.attempts_left and not known.was_repeated):
            _send_again(tx, account, job, reason=lost_answers.PROVED_ABSENT, actor="poll")
        else:
            fail_job(
                tx,
                job_id=job.id,
                attempt=job.attempt,
                code="upstream_unreachable",
                actor="poll",
                detail="no submit arrived upstream",
                account=account.label,
                from_states=(JobState.SUBMITTING,),
            )


def _give_up(tx: Transaction, account: AccountRow, job: LostJob, *, actor: str) -> str:
    """End a job that may have been charged and cannot be found, unless its caller wants a second try."""
    known = lost_answers.lock_unclear(tx, job_id=job.id, attempt=job.attempt)
    if known is None:
        return f"overtaken {job.id}"
    if known.retries_unclear and known.attempts_left and not known.was_repeated and not known.cancel_requested:
        doubt_charge(tx, account, job.id, detail="its first attempt is unclear")
        _send_again(tx, account, job, reason=lost_answers.SENT_AGAIN, actor=actor)
        return f"requeued {job.id}: sent again as requested"
    log.warning("charge_unclear", job_id=str(job.id), account=account.label)
    fail_job(
        tx,
        job_id=job.id,
        attempt=job.attempt,
        code="submit_unclear",
        actor=actor,
        detail="no answer, and it cannot be found upstream",
        account=account.label,
        from_states=(JobState.SUBMITTING,),
    )
    tx.on_commit(partial(celery_app.enqueue_submit, account_id=account.id))
    return f"failed {job.id}: submit_unclear"


def _send_again(tx: Transaction, account: AccountRow, job: LostJob, *, reason: str, actor: str) -> None:
    row = state_machine.requeue(
        tx,
        job_id=job.id,
        attempt=job.attempt,
        actor=actor,
        reason=reason,
        delay=0.0,
        account=account.label,
        counts=True,
    )
    if row is not None:
        announce(tx, row)
        tx.on_commit(partial(celery_app.enqueue_submit, job_id=job.id))


def doubt_charge(tx: Transaction, account: AccountRow, job_id: UUID, *, detail: str) -> None:
    """Record that a job may have been charged more than once, and report it to the operator."""
    row = lost_answers.doubt_charge(tx, job_id, detail=detail)
    if row is not None:
        log.warning("charged_twice_possible", job_id=str(job_id), account=account.label, detail=detail)
        tx.on_commit(partial(metrics.count, "dreamery_charge_doubts", "charged_twice_possible"))
        announce(tx, row)
