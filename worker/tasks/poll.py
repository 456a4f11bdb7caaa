"""Polls accounts: one upstream call for all open jobs of an account, then one transaction for all normal news.

Claims and news of accounts that are polled at the same time are written together. The provider says when a
job is done. A submit whose response was lost is found by its key, or searched for (`stages/polling/lost_answers.py`).
Jobs with other news (failures, cancellations, absences, incomplete results) are settled one by one.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

from worker.core.concurrency import continuations
from worker.core.concurrency.event_loop import in_thread, run_for
from worker.core.concurrency.group_commit import GroupCommit
from worker.core.errors import DreameryError
from worker.core.observability import tracing
from worker.core.observability.faults import UnexpectedError
from worker.core.observability.job_context import job_context, jobs_context
from worker.core.observability.logging import get_logger
from worker.db.accounts import polling
from worker.db.accounts.accounts import AccountRow
from worker.db.accounts.polling import OpenJob
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, retry_when_database_unavailable, transaction
from worker.messaging import celery_app, pubsub
from worker.providers.base import Record
from worker.providers.registry import get_provider
from worker.tasks.stages.account_session import call_upstream_async
from worker.tasks.stages.polling import cancellation, learn_echo, lost_answers, settle_record
from worker.tasks.stages.polling.claimed_poll import ClaimedPoll, claim_polls
from worker.tasks.stages.polling.fetch_apart import fetch_apart, known_faults, note_fault
from worker.tasks.stages.polling.next_poll import poll_later
from worker.tasks.stages.polling.settle_record import ABSENT_SECONDS, STABLE_POLLS, STABLE_SECONDS
from worker.tasks.stages.polling.write_news import News, PollEnd, PollOutcome, sort_news, write_ends, write_normal

log = get_logger("poll")

__all__ = ["ABSENT_SECONDS", "STABLE_POLLS", "STABLE_SECONDS", "poll", "poll_account", "poll_claimed"]

# With more open jobs than fit into one call: if this share of them is done, the next call follows at once.
_CONTINUE_SHARE = 0.5


def poll(*, account_id: UUID) -> str:
    """Poll every open job of the account, if its poll is due. Return a summary."""
    return run_for(poll_account(account_id), otherwise="its call continues in the background")


async def poll_account(account_id: UUID) -> str:
    """Like `poll`, on the event loop."""
    return await _guarded(account_id, _claim_and_poll(account_id))


async def poll_claimed(claimed: ClaimedPoll) -> str:
    """Make a poll that is claimed already."""
    return await _guarded(claimed.account.id, _poll(claimed))


async def _claim_and_poll(account_id: UUID) -> str:
    claimed = await _claims.add(account_id)
    return "not due" if claimed is None else await _poll(claimed)


async def _poll(claimed: ClaimedPoll) -> str:
    if not claimed.jobs and not claimed.lost:
        return "nothing open"
    with jobs_context("poll", [job.origin for job in claimed.jobs]):
        found = await lost_answers.find(claimed) if claimed.lost else set()
        if not claimed.jobs:
            await in_thread(_schedule_next, claimed, found)
            return _continue(claimed, found)
        return await _poll_open(claimed)


async def _guarded(account_id: UUID, work: Awaitable[str]) -> str:
    try:
        return await work
    except DATABASE_UNAVAILABLE_ERRORS:
        raise
    except BaseException as error:  # noqa: BLE001
        # Whatever happened, the account is polled again, each time a little later.
        fault = UnexpectedError(error)
        log.error("poll_failed", account_id=str(account_id), code=fault.code, detail=fault.detail, trace=fault.frames)  # noqa: TRY400
        await in_thread(_postpone, account_id)
        return f"poll failed: {fault.detail}"


async def _fetch(account: AccountRow, jobs: list[OpenJob]) -> dict[str, Record]:
    orders = [lost_answers.order_of(job) for job in jobs]
    records = await call_upstream_async(account, lambda ready: get_provider(ready).fetch_records(ready, orders))
    await learn_echo.learn(account, records)
    return records


async def _poll_open(claimed: ClaimedPoll) -> str:
    """Ask for the jobs that are most likely done; while most of them are, ask for the next ones at once."""
    account, rest, left = claimed.account, claimed.jobs, set[UUID]()
    known_faults.keep(account.id, {job.id for job in claimed.jobs})
    while rest:
        asked = polling.select_for_call(rest)
        try:
            answered, records = await fetch_apart(account, asked, _fetch)
        except DreameryError as error:
            # A failed poll does not affect the jobs upstream; only their deadline ends them.
            log.warning("poll_failed", account=account.label, code=error.code, detail=error.detail)
            await in_thread(_schedule_next, claimed, left)
            return f"poll of {account.label} failed: {error.code}"
        answered, cancelled = await cancellation.cancel_requested(account, answered, records)
        left |= cancelled
        news = sort_news(answered, records)
        if len(answered) == len(claimed.jobs) and not news.odd:
            ended = await _end_together(claimed, news)
            if ended is not None:
                return _continue(claimed, ended.left, others_wait=ended.others_wait)
        done = await in_thread(_settle_all, claimed, news)
        left |= done
        if len(done | cancelled) < _CONTINUE_SHARE * len(asked):
            break
        known = {job.id for job in asked}
        rest = [job for job in rest if job.id not in known]
    if left or known_faults.of(account.id) != {job.id for job in claimed.jobs}:
        known_faults.reset_pause(account.id)
        await in_thread(_schedule_next, claimed, left)
    else:
        await in_thread(_postpone, account.id)
    return _continue(claimed, left)


async def _end_together(claimed: ClaimedPoll, news: News) -> PollOutcome | None:
    """Write the news of a poll that needs no other call, with those of other accounts. None = one by one instead."""
    try:
        outcome = await _ends.add(PollEnd(claimed, news))
    except DATABASE_UNAVAILABLE_ERRORS:
        raise
    except Exception as error:  # noqa: BLE001 - each record meets its own error again, alone
        log.warning("batch_split", batch="poll", items=len(news.normal), reason=type(error).__name__)
        return None
    known_faults.reset_pause(claimed.account.id)
    _trace(news)
    return outcome


def _continue(claimed: ClaimedPoll, left: set[UUID], *, others_wait: bool = True) -> str:
    """Fill the slots that became free, if a job may be waiting. Return a summary."""
    account = claimed.account
    if left and others_wait and not continuations.start("submit", account.id):
        celery_app.enqueue_submit(account_id=account.id)
    return f"polled {len(claimed.jobs)} jobs on {account.label}, {len(left)} left the account"


_claims = GroupCommit("claim_polls", claim_polls, away=DATABASE_UNAVAILABLE_ERRORS)
_ends = GroupCommit("poll", write_ends, away=DATABASE_UNAVAILABLE_ERRORS)


def _settle_all(claimed: ClaimedPoll, news: News) -> set[UUID]:
    """Write all news. Return the jobs that left their slots of the account."""
    left: set[UUID] = set()
    with pubsub.batch_job_changes():
        try:
            left |= write_normal(claimed, news)
        except DATABASE_UNAVAILABLE_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - each record meets its own error again, alone
            log.warning("batch_split", batch="poll", items=len(news.normal), reason=type(error).__name__)
            for single in news.one_by_one():
                job = single.normal[0][0]
                if _settle_alone(claimed, job, partial(write_normal, claimed, single)):
                    left.add(job.id)
        links = _trace(news)
        for job, record in news.odd:
            with job_context("settle", job.id, job.origin, links=links):
                if _settle_alone(
                    claimed,
                    job,
                    partial(settle_record.settle, claimed.account, job, record, seconds=claimed.duration_of(job)),
                ):
                    left.add(job.id)
    return left


def _trace(news: News) -> list[str]:
    """Show in the traces of the jobs when their news were written, together with those of others. Return the links."""
    links = [trace] if (trace := tracing.traceparent()) else []
    for job, _ in news.normal if links else []:
        with job_context("settle", job.id, job.origin, links=links):
            pass
    return links


def _settle_alone(claimed: ClaimedPoll, job: OpenJob, settle: Callable[[], object]) -> bool:
    """Settle the news of one job. A fault in them leaves the job open, and the other jobs alone."""
    try:
        return bool(settle())
    except DATABASE_UNAVAILABLE_ERRORS:
        raise
    except Exception as error:  # noqa: BLE001
        note_fault(claimed.account, [job], UnexpectedError(error))
        return False


@retry_when_database_unavailable
def _schedule_next(claimed: ClaimedPoll, left: set[UUID]) -> None:
    seconds = claimed.next_in(left)
    with transaction(plan_once=True) as tx:
        polling.end_polls(tx, {claimed.account.id: seconds})
        if seconds is not None:
            tx.on_commit(partial(poll_later, claimed.account.id, seconds))


@retry_when_database_unavailable
def _postpone(account_id: UUID) -> None:
    """Poll the account again after a pause that grows, because this poll could handle nothing."""
    with transaction() as tx:
        polling.postpone_poll(tx, account_id, seconds=known_faults.next_pause(account_id))
