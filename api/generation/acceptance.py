"""Accepts planned jobs and enqueues them. A duplicate joins the jobs of the first request.

Requests of one caller that arrive while that caller's previous batch is accepted form the next batch, and one
transaction accepts them all. What is unusual in a batch (a duplicate, a limit, an error) is accepted alone afterwards.
"""

import asyncio
import contextlib
import contextvars
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import UUID

from api.auth.caller import Caller
from api.generation import deduplication
from api.generation.account_assignment import assign_accounts
from api.generation.deduplication import DuplicateUndecidedError
from api.generation.media.reference_images import delete_stored_inputs
from api.generation.quotas import QuotaCheck, with_cost_limit
from api.http.request_tracker import TrackedRequest
from worker.core.catalog.money import CostLimit
from worker.core.concurrency.keyed_batches import ALONE, KeyedBatches, Left
from worker.core.errors import ERRORS, DreameryError
from worker.core.observability.job_context import Origin, current_origin
from worker.core.quotas import CONCURRENT_JOBS
from worker.core.settings import get_settings
from worker.db.batches import held_jobs
from worker.db.batches.held_jobs import HeldGroup
from worker.db.engine import (
    DATABASE_UNAVAILABLE_ERRORS,
    Transaction,
    is_database_away,
    retry_for_a_caller,
    transaction,
)
from worker.db.jobs import idempotency, inputs, queries, state_machine
from worker.db.jobs.idempotency import NewRequest
from worker.db.jobs.inputs import NewInput
from worker.db.jobs.state_machine import NewGroup, NewJob
from worker.db.platform import state as platform_state
from worker.db.users.quotas import QuotaUsage
from worker.messaging import celery_app, pubsub

_RETRY_SECONDS = 0.15
_HELD_RETRY_SECONDS = 60


@dataclass(frozen=True, slots=True)
class GenerationPlan:
    """A valid request: its jobs, the number of results in its answer, their inputs and its fingerprint."""

    jobs: list[NewJob]
    n: int
    fingerprint: str
    inputs: list[NewInput] = field(default_factory=list)
    # A deliberate new try (retry route): a recent failure of the same request does not answer it.
    wants_new_jobs: bool = False
    max_cost: CostLimit | None = None  # as the body says
    # Writes more rows in the transaction that accepts the jobs.
    extra_write: Callable[[Transaction], object] | None = None


@dataclass(frozen=True, slots=True)
class AcceptedRequest:
    """The jobs of a request, the number of results in its answer, and whether an earlier request created them."""

    job_ids: list[UUID]
    n: int
    replayed: bool = False
    warnings: tuple[QuotaUsage, ...] = ()  # limits whose soft value is reached


def fingerprint(path: str, fields: dict[str, Any], input_descriptions: list[Any]) -> str:
    """Return the hash of a request: its path and parsed body, with inputs as the jobs describe them."""
    text = json.dumps([path, fields, input_descriptions], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class _Submission:
    """A request to accept. `context` and `origin` are those of its HTTP request: log fields and trace."""

    plan: GenerationPlan
    caller: Caller
    request: NewRequest
    tracked: TrackedRequest
    context: contextvars.Context
    origin: Origin


async def accept(plan: GenerationPlan, *, caller: Caller, key: str | None, tracked: TrackedRequest) -> AcceptedRequest:
    """Write the jobs and enqueue them. A duplicate returns the jobs of the earlier request instead."""
    tracked.wants_new_jobs = tracked.wants_new_jobs or plan.wants_new_jobs
    # The account choice is part of the fingerprint: a request with another choice is not a duplicate.
    choice = f":{caller.chosen_accounts}" if caller.chosen_accounts else ""
    request = NewRequest(
        caller=caller.scope,
        route=tracked.route,
        fingerprint=plan.fingerprint + choice,
        group_id=plan.jobs[0].id,
        key=key,
        body_digest=tracked.body_digest,
    )
    submission = _Submission(plan, caller, request, tracked, contextvars.copy_context(), current_origin())
    batch = (tracked.tracker.process, caller.owner, caller.scope, caller.chosen_accounts)
    while True:
        with contextlib.suppress(DuplicateUndecidedError):
            return await _batches.add(batch, submission)
        await asyncio.sleep(_RETRY_SECONDS)


def _accept_together(submissions: list[_Submission]) -> list[AcceptedRequest | Left]:
    """Accept what is usual among requests of one caller in one transaction; the rest is left alone.

    Run again while Postgres is unavailable: the jobs of a commit whose answer was lost reveal it.
    """
    attempts = 0

    @retry_for_a_caller
    def attempt() -> set[UUID]:
        try:
            return write()
        except DATABASE_UNAVAILABLE_ERRORS as error:
            if is_database_away(error):
                raise
            # One of the requests waited too long, for example for its idempotency key.
            raise _NotTogetherError from error

    def write() -> set[UUID]:
        nonlocal attempts
        attempts += 1
        with transaction(plan_once=True) as tx:
            if attempts > 1 and (written := queries.existing_groups(tx, [s.request.group_id for s in submissions])):
                known = [s for s in submissions if s.request.group_id in written]
                _enqueue_on_commit(tx, [job for s in known for job in s.plan.jobs])
                return written
            usual = _register_usual(tx, _without_repeats(submissions))
            if usual and _insert(tx, usual):
                # Which request of the batch reaches the soft limit depends on the order.
                raise _NotTogetherError
            return {s.request.group_id for s in usual}

    accepted = attempt()
    return [
        AcceptedRequest(job_ids=[job.id for job in s.plan.jobs], n=s.plan.n)
        if s.request.group_id in accepted
        else ALONE
        for s in submissions
    ]


class _NotTogetherError(Exception):
    """A batch must be accepted one by one."""


def _without_repeats(submissions: list[_Submission]) -> list[_Submission]:
    """Leave out requests that may repeat another one of the batch, or that write more than jobs."""
    found: list[_Submission] = []
    identities: set[tuple[str, str, str | None]] = set()
    for one in submissions:
        request = one.request
        identity = (request.route, "" if request.key is not None else request.fingerprint, request.key)
        # Without a mark it repeats no request that is still open, such as those of its batch.
        is_first = identity not in identities or (request.key is None and one.tracked.retries == 0)
        # The rights of a key may have changed between two requests.
        if is_first and one.plan.extra_write is None and one.caller == submissions[0].caller:
            identities.add(identity)
            found.append(one)
    return found


def _register_usual(tx: Transaction, submissions: list[_Submission]) -> list[_Submission]:
    """Register the requests that repeat no earlier one, and return them."""
    keyed = [s for s in submissions if s.request.key is not None]
    unkeyed = [s for s in submissions if s.request.key is None]
    if not get_settings().deduplicate_requests:
        return [*unkeyed, *_register(tx, keyed)]
    if unkeyed:
        idempotency.lock_all_duplicates(tx, [s.request for s in unkeyed])
        are_new = deduplication.are_new(tx, [(s.request, s.tracked) for s in unkeyed])
        unkeyed = [s for s, new in zip(unkeyed, are_new, strict=True) if new and not s.tracked.disconnected.is_set()]
        for s in unkeyed:
            s.tracked.group_id = s.request.group_id
    return _register(tx, [*unkeyed, *keyed])


def _register(tx: Transaction, submissions: list[_Submission]) -> list[_Submission]:
    """Insert the rows of the requests; return those whose idempotency key is not in use."""
    inserted = idempotency.insert_requests(tx, [(s.request, s.tracked.holder) for s in submissions])
    return [s for s in submissions if s.request.group_id in inserted]


def _accept_alone(submission: _Submission) -> AcceptedRequest:
    return submission.context.run(_accept, submission)


def _accept(submission: _Submission) -> AcceptedRequest:
    """Run one transaction, again while Postgres is unavailable. Job ids reveal a commit whose answer was lost."""
    attempts, plan, request = 0, submission.plan, submission.request
    new = AcceptedRequest(job_ids=[job.id for job in plan.jobs], n=plan.n)

    @retry_for_a_caller
    def attempt() -> AcceptedRequest:
        nonlocal attempts
        attempts += 1
        with transaction(plan_once=True) as tx:
            if attempts > 1 and queries.group_members(tx, request.group_id):
                _enqueue_on_commit(tx, plan.jobs)
                return new
            if known := _jobs_of_earlier_request(tx, request, submission.tracked):
                if request.group_id in known:
                    # Our own jobs: the commit whose answer was lost was not complete at the check above.
                    _enqueue_on_commit(tx, plan.jobs)
                    return new
                return AcceptedRequest(job_ids=known, n=plan.n, replayed=True)
            warnings = _insert(tx, [submission])
        return replace(new, warnings=warnings)

    try:
        accepted = attempt()
    except DreameryError:
        # Our own errors wrote nothing. After any other failure the rows may exist, so the files must stay.
        delete_stored_inputs(plan.inputs)
        raise
    if accepted.replayed:
        delete_stored_inputs(plan.inputs)
    return accepted


_Batch = tuple[UUID, str, str, str]
_batches: KeyedBatches[_Batch, _Submission, AcceptedRequest] = KeyedBatches(
    _accept_together, alone=_accept_alone, is_fatal=is_database_away
)


def _jobs_of_earlier_request(tx: Transaction, request: NewRequest, tracked: TrackedRequest) -> list[UUID]:
    """Return the jobs of the earlier request with the same key or fingerprint; [] registers this one as new."""
    if request.key is not None:
        earlier = _group_of_key(tx, request, tracked)
        return _members(tx, earlier) if earlier else []
    if not get_settings().deduplicate_requests:
        return []
    idempotency.lock_duplicates(tx, request)
    original = deduplication.join_earlier_request(tx, request, tracked)
    if original is not None:
        return queries.group_members(tx, original.group_id)
    if tracked.disconnected.is_set():
        # A repeat may have arrived already and found nothing to join.
        raise DreameryError("client_disconnected")
    tracked.group_id = request.group_id
    idempotency.insert_request(tx, request, tracked.holder)
    return []


def _group_of_key(tx: Transaction, request: NewRequest, tracked: TrackedRequest) -> UUID | None:
    """Return the jobs' group of the idempotency key; None registers the key for the new group."""
    while not idempotency.insert_request(tx, request, tracked.holder):
        earlier = idempotency.find_by_key(tx, request)
        if earlier is None:
            continue  # deleted in the meantime
        if earlier.fingerprint != request.fingerprint:
            message = "This Idempotency-Key was used with another request. Use a new key."
            raise DreameryError("idempotency_key_reuse", message)
        if not earlier.refused:
            group_id: UUID = earlier.group_id
            return group_id
        # Rejected without cost (no credits, too busy): the answer is not kept and the key can be used again.
        idempotency.delete_request(tx, earlier.group_id)
    return None


def _members(tx: Transaction, group_id: UUID) -> list[UUID]:
    members = queries.group_members(tx, group_id)
    if not members:
        message = "The jobs of the first request with this Idempotency-Key were deleted. Use a new key."
        raise DreameryError("job_deleted", message)
    return members


def reject_while_draining(tx: Transaction) -> None:
    """Raises `draining` while the platform takes no new jobs."""
    reason = platform_state.get_drain_reason(tx)
    if reason is not None:
        message = f"{ERRORS['draining'].message} Reason: {reason}" if reason else None
        raise DreameryError("draining", message, retry_after=30)


def _insert(tx: Transaction, submissions: list[_Submission]) -> tuple[QuotaUsage, ...]:
    """Write all jobs of these requests of one caller, or none when a limit is exceeded.

    Return the limits whose soft value is reached.
    """
    reject_while_draining(tx)
    caller, jobs = submissions[0].caller, [job for s in submissions for job in s.plan.jobs]
    # Lock order of all code that accepts jobs: the owner's quota first, then its fair-queue positions.
    quota_check = QuotaCheck(tx, caller, new_jobs=len(jobs))
    assigned = {job.id: job for job in assign_accounts(tx, jobs, caller)}
    for s in submissions:
        limited = with_cost_limit(caller, s.plan.max_cost, [assigned[job.id] for job in s.plan.jobs])
        assigned |= {job.id: job for job in limited}
    assigned = {job_id: with_schedule(job, caller) for job_id, job in assigned.items()}
    groups = [NewGroup([assigned[job.id] for job in s.plan.jobs], s.origin) for s in submissions]
    state_machine.accept_groups(tx, groups)
    release_accepted(tx, caller, list(assigned.values()))
    for s in submissions:
        inputs.add_inputs(tx, [job.id for job in s.plan.jobs], s.plan.inputs)
        if s.plan.extra_write is not None:
            s.plan.extra_write(tx)
    _enqueue_on_commit(tx, list(assigned.values()))
    # Feeds show jobs that still wait: their first change may be minutes away.
    tx.on_commit(partial(pubsub.publish_accepted_jobs, list(assigned)))
    return quota_check.check_cost(list(assigned), requests=len(submissions))


def with_schedule(job: NewJob, caller: Caller) -> NewJob:
    """Return the job with the times of its request, and with what holds it."""
    when = caller.schedule
    is_limited = any(limit.name == CONCURRENT_JOBS for limit in caller.limits)
    hold = held_jobs.key_hold(caller.key_root) if is_limited and caller.key_root is not None else None
    if hold is None and when.idle:
        hold = held_jobs.IDLE
    elif hold is None and when.not_before is not None:
        hold = held_jobs.TIME
    lane = held_jobs.IDLE if when.idle else None
    return replace(job, hold=hold, lane=lane, not_before=when.not_before, expires_at=when.expires_at)


def release_accepted(tx: Transaction, caller: Caller, jobs: Sequence[NewJob]) -> None:
    """Release written jobs at once as far as possible, behind earlier ones of the same hold. The tick releases others.

    Raises `queue_full` when the caller has too many held jobs.
    """
    holds = {job.hold for job in jobs if job.hold is not None}
    if not holds:
        return
    check_room(tx, caller, 0)
    for hold in sorted(holds):
        released = held_jobs.release(tx, HeldGroup(caller.owner, hold))
        tx.on_commit(partial(celery_app.enqueue_jobs, released))


def check_room(tx: Transaction, caller: Caller, more: int) -> None:
    """Raise `queue_full` when the caller would have too many held jobs with these."""
    most = held_jobs.MOST_HELD
    if held_jobs.count_held(tx, caller.owner, at_most=most + 1) + more > most:
        message = f"At most {most} jobs of a user may wait before the queue. Wait until some of them have begun."
        raise DreameryError("queue_full", message, retry_after=_HELD_RETRY_SECONDS)


def _enqueue_on_commit(tx: Transaction, jobs: list[NewJob]) -> None:
    """Wake the workers after the commit."""
    tx.on_commit(partial(celery_app.enqueue_jobs, [job for job in jobs if job.hold is None]))
