"""Accepts planned jobs in one transaction and enqueues them. A duplicate joins the jobs of the first request."""

import asyncio
import contextlib
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import Caller
from api.generation import deduplication
from api.generation.deduplication import DuplicateUndecidedError
from api.generation.quotas import QuotaCheck
from api.generation.reference_images import delete_stored_inputs
from api.http.cors_and_compression import format_utc
from api.http.request_tracker import TrackedRequest
from worker.core.catalog.models import ImageModel, VideoModel, get_catalog
from worker.core.catalog.upstream_models import ModelListing, may_offer
from worker.core.errors import ERRORS, DreameryError
from worker.core.messages.cooldown import add_cooldown
from worker.core.settings import get_settings
from worker.db.accounts import management, model_listings
from worker.db.credits.learned_prices import PriceList
from worker.db.engine import Transaction, retry_when_database_unavailable, transaction
from worker.db.jobs import durations, idempotency, inputs, queries, state_machine
from worker.db.jobs.idempotency import NewRequest
from worker.db.jobs.inputs import NewInput
from worker.db.jobs.state_machine import NewJob
from worker.db.platform import state as platform_state
from worker.db.scheduling import unschedulable
from worker.db.scheduling.unschedulable import Cooldown
from worker.db.users.quotas import QuotaUsage
from worker.messaging import celery_app

_RETRY_SECONDS = 0.15


@dataclass(frozen=True, slots=True)
class GenerationPlan:
    """A valid request: its jobs, the number of results in its answer, their inputs and its fingerprint."""

    jobs: list[NewJob]
    n: int
    fingerprint: str
    inputs: list[NewInput] = field(default_factory=list)
    # A deliberate new try (retry route): a recent failure of the same request does not answer it.
    wants_new_jobs: bool = False
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


async def accept(plan: GenerationPlan, *, caller: Caller, key: str | None, tracked: TrackedRequest) -> AcceptedRequest:
    """Write the jobs and enqueue them. A duplicate returns the jobs of the earlier request instead."""
    tracked.wants_new_jobs = tracked.wants_new_jobs or plan.wants_new_jobs
    while True:
        with contextlib.suppress(DuplicateUndecidedError):
            return await run_in_threadpool(partial(_accept, plan, caller=caller, key=key, tracked=tracked))
        await asyncio.sleep(_RETRY_SECONDS)


def _accept(plan: GenerationPlan, *, caller: Caller, key: str | None, tracked: TrackedRequest) -> AcceptedRequest:
    """Run one transaction, again while Postgres is unavailable. Job ids reveal a commit whose answer was lost."""
    attempts, group_id = 0, plan.jobs[0].id
    new = AcceptedRequest(job_ids=[job.id for job in plan.jobs], n=plan.n)
    # The account choice is part of the fingerprint: a request with another choice is not a duplicate.
    choice = "" if caller.account_choice == "any" else f":{caller.account_choice}"
    request = NewRequest(
        caller=caller.scope,
        route=tracked.route,
        fingerprint=plan.fingerprint + choice,
        group_id=group_id,
        key=key,
        body_digest=tracked.body_digest,
    )

    @retry_when_database_unavailable
    def attempt() -> AcceptedRequest:
        nonlocal attempts
        attempts += 1
        with transaction() as tx:
            if attempts > 1 and queries.group_members(tx, group_id):
                for job in plan.jobs:
                    tx.on_commit(partial(celery_app.enqueue_claim, job.kind, job_id=job.id))
                return new
            if known := _jobs_of_earlier_request(tx, request, tracked):
                return AcceptedRequest(job_ids=known, n=plan.n, replayed=True)
            warnings = _insert(tx, plan, caller)
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


def _insert(tx: Transaction, plan: GenerationPlan, caller: Caller) -> tuple[QuotaUsage, ...]:
    """Write all jobs of the request, or none when a limit is exceeded. Return limits whose soft value is reached."""
    reject_while_draining(tx)
    # Lock order of all code that accepts jobs: the owner's quota first, then its fair-queue positions.
    quota_check = QuotaCheck(tx, caller, new_jobs=len(plan.jobs))
    account_ids = caller.account_ids(tx)
    usable = {} if account_ids else usable_regions(tx, caller)
    # Accounts are assigned here, not while planning: session ids get rows only with an accepted job.
    prices = PriceList(tx, user_id=caller.user_id, choice=caller.account_choice)
    accepted_jobs = [
        _assign_accounts(
            tx,
            job,
            caller,
            account_ids=_eligible_accounts(tx, job, caller, account_ids),
            avoid=accounts_without_model(tx, job, caller, usable),
            prices=prices,
        )
        for job in plan.jobs
    ]
    _reject_during_cooldowns(tx, accepted_jobs, caller)
    state_machine.accept(tx, accepted_jobs)
    inputs.add_inputs(tx, [job.id for job in accepted_jobs], plan.inputs)
    if plan.extra_write is not None:
        plan.extra_write(tx)
    for job in accepted_jobs:
        tx.on_commit(partial(_enqueue, job.id, job.kind, job.account_ids))
    return quota_check.check_cost([job.id for job in accepted_jobs])


def _reject_during_cooldowns(tx: Transaction, jobs: list[NewJob], caller: Caller) -> None:
    """Raise the reason of the cooldown when all accounts that could run a job are in one: it would only fail."""
    checked: set[tuple[object, ...]] = set()
    for job in jobs:
        accounts = (tuple(job.account_ids), tuple(job.avoid_accounts), job.price)
        if accounts in checked:
            continue  # the jobs of one request rarely differ in this
        checked.add(accounts)
        cooldown = unschedulable.first_cooldown_for_new_job(
            tx,
            user_id=caller.user_id,
            account_ids=job.account_ids,
            choice=job.account_choice,
            avoid=job.avoid_accounts,
            price=job.price,
        )
        if cooldown is not None:
            raise cooldown_error(cooldown, has_tokens=caller.user_id is None)


def cooldown_error(cooldown: Cooldown, *, has_tokens: bool) -> DreameryError:
    """Return the error of a request that no account can take before the end of the cooldown."""
    kind = ERRORS[cooldown.code]
    seconds = math.ceil((cooldown.until - cooldown.now).total_seconds())
    return DreameryError(
        cooldown.code,
        add_cooldown(kind.message, cooldown.until, cooldown.now),
        retry_after=seconds,
        # With accounts of the platform, an expired session is no fault of the caller's key.
        status=kind.status if has_tokens or kind.status != 401 else 503,
        # SDKs would repeat the request at most a minute later.
        headers={"x-should-retry": "false", "X-Cooldown-Reset": format_utc(cooldown.until) or ""},
    )


def usable_regions(tx: Transaction, caller: Caller) -> dict[str, list[UUID]]:
    """Return the accounts that the user's jobs may run on, by region. Raises the reason when there are none."""
    usable = management.usable_regions(tx, user_id=caller.user_id, choice=caller.account_choice)
    if usable:
        return usable
    code, message = management.unusable_reason(tx, user_id=caller.user_id, choice=caller.account_choice), None
    if code == "no_account_available" and caller.account_choice == "own":
        message = "You have no usable account of your own. Add one with `POST /v1/accounts`, or leave out `X-Accounts`."
    raise DreameryError(code, message, retry_after=60)


def _assign_accounts(
    tx: Transaction, job: NewJob, caller: Caller, *, account_ids: list[UUID], avoid: list[UUID], prices: PriceList
) -> NewJob:
    usual = durations.find_duration_stats(tx, job.kind, job.model, job.params)
    price = prices.price_of_job(kind=job.kind, model=job.model, params=job.params, account_ids=account_ids, avoid=avoid)
    return replace(
        job,
        account_ids=account_ids,
        avoid_accounts=avoid,
        account_choice=caller.account_choice,
        usual_seconds=usual.p50 if usual else None,
        price=price.credits if price else None,
    )


def find_catalog_model(job: NewJob) -> ImageModel | VideoModel | None:
    """Return the catalog model of a job; None for conversations and for models that only upstream lists."""
    catalog = get_catalog()
    if job.kind == "image" and catalog.knows_image(job.model):
        return catalog.image_model(job.model)
    return catalog.video_model(job.model) if job.kind == "video" and catalog.knows_video(job.model) else None


def _eligible_accounts(tx: Transaction, job: NewJob, caller: Caller, account_ids: list[UUID]) -> list[UUID]:
    """Return the caller's accounts that may run the job. An account without the model would fail it permanently.

    A plan may name accounts (those that upstream lists the model for); otherwise the region and the lists decide.
    """
    if job.account_ids:
        return [a for a in account_ids if a in job.account_ids] if account_ids else job.account_ids
    model = find_catalog_model(job)
    if model is None or not account_ids:
        return account_ids
    pairs = list(zip(account_ids, caller.tokens, strict=True))
    certain = [a for a, (_, token) in pairs if model.is_available_in(token.region)]
    if certain:
        return certain
    lists = {one.account_id: one for one in model_listings.listings(tx, [h for h, _ in caller.tokens], user_id=None)}
    return [a for a, (_, token) in pairs if may_offer(model, token.region, lists.get(a))] or account_ids


def accounts_without_model(tx: Transaction, job: NewJob, caller: Caller, usable: dict[str, list[UUID]]) -> list[UUID]:
    """Return usable accounts that do not offer the model, by their region and upstream's model list.

    The job avoids these accounts instead of naming the others, so that an account added later may run it. Raises
    `no_account_available` when no account offers the model.
    """
    model = None if job.account_ids else find_catalog_model(job)
    if model is None or all(model.is_available_in(region) for region in usable):
        return []
    lists = {listing.account_id: listing for listing in _listings(tx, caller)}
    without_model = [a for region, ids in usable.items() for a in ids if not may_offer(model, region, lists.get(a))]
    if len(without_model) == sum(map(len, usable.values())):
        where = ", ".join(sorted(model.where))
        message = f"None of your accounts is in a region that offers model {job.model!r} (regions: {where}). Add one."
        raise DreameryError("no_account_available", message, param="model", retry_after=60)
    return without_model


def _listings(tx: Transaction, caller: Caller) -> list[ModelListing]:
    return model_listings.listings(tx, [], user_id=caller.user_id, choice=caller.account_choice)


def _enqueue(job_id: UUID, kind: str, account_ids: list[UUID]) -> None:
    if kind == "chat":
        # Each conversation occupies one thread, so each gets its own message.
        celery_app.enqueue_converse(job_id=job_id)
        return
    # With one account the worker does not need to score accounts.
    if len(account_ids) == 1:
        celery_app.enqueue_submit_soon(account_ids[0])
    else:
        celery_app.enqueue_submit(job_id=job_id)
