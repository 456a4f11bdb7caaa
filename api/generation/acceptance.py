"""From planned jobs to accepted ones: one transaction, and the nudge. Repeats join the jobs of their first request."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import Caller
from api.generation import deduplication
from api.generation.deduplication import UnsureError
from api.generation.quotas import Budget
from api.generation.reference_images import drop_pictures
from api.http.request_tracker import Visit
from worker.core.catalog.models import ImageModel, VideoModel, get_catalog
from worker.core.catalog.upstream_models import Listing
from worker.core.errors import ERRORS, DreameryError
from worker.core.settings import get_settings
from worker.db.accounts import management, model_listings
from worker.db.credits.learned_prices import PriceList
from worker.db.engine import Transaction, retry_when_database_away, transaction
from worker.db.jobs import durations, idempotency, inputs, queries, state_machine
from worker.db.jobs.idempotency import NewRequest
from worker.db.jobs.inputs import NewInput
from worker.db.jobs.state_machine import NewJob
from worker.db.platform import state as platform_state
from worker.db.users.quotas import Used
from worker.messaging import celery_app

_ASK_AGAIN_SECONDS = 0.15


@dataclass(frozen=True, slots=True)
class Planned:
    """A checked request: its jobs, how many results its answer holds, their inputs, and what tells it from others."""

    jobs: list[NewJob]
    n: int
    fingerprint: str
    inputs: list[NewInput] = field(default_factory=list)
    # What else is written in the transaction that accepts the jobs.
    also: Callable[[Transaction], object] | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a request stands for: its jobs, how many results its answer holds, and whether it was known before."""

    job_ids: list[UUID]
    n: int
    replayed: bool = False
    warnings: tuple[Used, ...] = ()  # limits of the caller whose soft value is reached


def fingerprint(path: str, fields: dict[str, Any], marks: list[Any]) -> str:
    """What tells two requests apart: the path and the parsed body, with files and pictures as the jobs show them."""
    text = json.dumps([path, fields, marks], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


async def accept(planned: Planned, *, caller: Caller, key: str | None, visit: Visit) -> Accepted:
    """Write the jobs and nudge the workers; for a repeat, the jobs of the request that it repeats."""
    while True:
        with contextlib.suppress(UnsureError):
            return await run_in_threadpool(partial(_accept, planned, caller=caller, key=key, visit=visit))
        await asyncio.sleep(_ASK_AGAIN_SECONDS)


def _accept(planned: Planned, *, caller: Caller, key: str | None, visit: Visit) -> Accepted:
    """One transaction, repeated when Postgres went away: a commit whose answer was lost is found by its ids."""
    tries, group_id = 0, planned.jobs[0].id
    new = Accepted(job_ids=[job.id for job in planned.jobs], n=planned.n)
    # Another choice of accounts is another wish: it must not be answered with jobs that run elsewhere.
    told = f"{planned.fingerprint}:{caller.account_choice}" if caller.account_choice != "any" else planned.fingerprint
    request = NewRequest(caller=caller.scope, route=visit.route, fingerprint=told, group_id=group_id, key=key)

    @retry_when_database_away
    def attempt() -> Accepted:
        nonlocal tries
        tries += 1
        with transaction() as tx:
            if tries > 1 and queries.group_members(tx, group_id):
                for job in planned.jobs:
                    tx.on_commit(partial(celery_app.nudge_claim, job.kind, job_id=job.id))
                return new
            if known := _known_jobs(tx, request, visit):
                return Accepted(job_ids=known, n=planned.n, replayed=True)
            warnings = _insert(tx, planned, caller)
        return replace(new, warnings=warnings)

    try:
        accepted = attempt()
    except DreameryError:
        # A refusal of ours wrote nothing. After any other failure the rows may be there, so the bytes must stay.
        drop_pictures(planned.inputs)
        raise
    if accepted.replayed:
        drop_pictures(planned.inputs)
    return accepted


def _known_jobs(tx: Transaction, request: NewRequest, visit: Visit) -> list[UUID]:
    """The jobs that this request stands for already, by its key or as a repeat; none = it now stands for new ones."""
    if request.key is not None:
        earlier = _known_key(tx, request, visit)
        return _members(tx, earlier) if earlier else []
    if not get_settings().join_repeats:
        return []
    idempotency.lock_twins(tx, request)
    repeated = deduplication.joined(tx, request, visit)
    if repeated is not None:
        return queries.group_members(tx, repeated.group_id)
    if visit.gone.is_set():
        # Its repeat may be on the way already, and would find nothing to join.
        raise DreameryError("client_disconnected")
    visit.group_id = request.group_id
    idempotency.remember_request(tx, request, visit.holder)
    return []


def _known_key(tx: Transaction, request: NewRequest, visit: Visit) -> UUID | None:
    """The group that the key stands for; None = it now stands for the new one."""
    while not idempotency.remember_request(tx, request, visit.holder):
        earlier = idempotency.remembered_request(tx, request)
        if earlier is None:
            continue  # given free this moment
        if earlier.fingerprint != request.fingerprint:
            message = "This Idempotency-Key was used with another request. Use a new key."
            raise DreameryError("idempotency_key_reuse", message)
        if not earlier.refused:
            group_id: UUID = earlier.group_id
            return group_id
        # Refused at no cost (no credits, too busy): such answers are not kept, so that the key can be used again.
        idempotency.forget_request(tx, earlier.group_id)
    return None


def _members(tx: Transaction, group_id: UUID) -> list[UUID]:
    members = queries.group_members(tx, group_id)
    if not members:
        message = "The jobs of the first request with this Idempotency-Key were deleted. Use a new key."
        raise DreameryError("job_deleted", message)
    return members


def refuse_while_draining(tx: Transaction) -> None:
    """Raises `draining` while the platform takes no new jobs."""
    reason = platform_state.draining(tx)
    if reason is not None:
        message = f"{ERRORS['draining'].message} Reason: {reason}" if reason else None
        raise DreameryError("draining", message, retry_after=30)


def _insert(tx: Transaction, planned: Planned, caller: Caller) -> tuple[Used, ...]:
    """Write the jobs; all of the request or, where a limit forbids, none. The caller's limits that are nearly used."""
    refuse_while_draining(tx)
    # The first lock of all: the owner's budget, then its turns, in whatever accepts jobs.
    budget = Budget(tx, caller, new_jobs=len(planned.jobs))
    account_ids = caller.account_ids(tx)
    usable = {} if account_ids else usable_regions(tx, caller)
    # Chosen here, not planned before: session ids get their rows only with an accepted job.
    prices = PriceList(tx, user_id=caller.user_id, choice=caller.account_choice)
    placed = [
        _placed(
            tx,
            job,
            caller,
            account_ids=_fitting(job, caller, account_ids),
            unfit=unfit_accounts(tx, job, caller, usable),
            prices=prices,
        )
        for job in planned.jobs
    ]
    state_machine.accept(tx, placed)
    inputs.add_inputs(tx, [job.id for job in placed], planned.inputs)
    if planned.also is not None:
        planned.also(tx)
    for job in placed:
        tx.on_commit(partial(_nudge, job.id, job.kind, job.account_ids))
    return budget.take([job.id for job in placed])


def usable_regions(tx: Transaction, caller: Caller) -> dict[str, list[UUID]]:
    """The accounts that the user's jobs may run on, by region. Raises why there is none."""
    usable = management.usable_regions(tx, user_id=caller.user_id, choice=caller.account_choice)
    if usable:
        return usable
    code, message = management.why_unusable(tx, user_id=caller.user_id, choice=caller.account_choice), None
    if code == "no_account_available" and caller.account_choice == "own":
        message = (
            "You have no account of your own in order. Add one with `POST /v1/accounts`, or leave out `X-Accounts`."
        )
    raise DreameryError(code, message, retry_after=60)


def _placed(
    tx: Transaction, job: NewJob, caller: Caller, *, account_ids: list[UUID], unfit: list[UUID], prices: PriceList
) -> NewJob:
    usual = durations.usual(tx, job.kind, job.model, job.params)
    price = prices.price_of_job(kind=job.kind, model=job.model, params=job.params, account_ids=account_ids, avoid=unfit)
    return replace(
        job,
        account_ids=account_ids,
        avoid_accounts=unfit,
        account_choice=caller.account_choice,
        usual_seconds=usual.p50 if usual else None,
        price=price.credits if price else None,
    )


def model_of(job: NewJob) -> ImageModel | VideoModel | None:
    """The catalog's model of the job; None when only upstream's list knows it, and for conversations."""
    catalog = get_catalog()
    if job.kind == "image" and catalog.knows_image(job.model):
        return catalog.image_model(job.model)
    return catalog.video_model(job.model) if job.kind == "video" and catalog.knows_video(job.model) else None


def _fitting(job: NewJob, caller: Caller, account_ids: list[UUID]) -> list[UUID]:
    """The caller's accounts that may run the job. One that has not the model would refuse it for good.

    A plan may name some (the accounts that upstream lists the model for); else the regions decide, where they differ.
    """
    if job.account_ids:
        return [a for a in account_ids if a in job.account_ids] if account_ids else job.account_ids
    model = model_of(job)
    if model is None or not account_ids:
        return account_ids
    pairs = zip(account_ids, caller.tokens, strict=True)
    return [a for a, (_, token) in pairs if model.offered_in(token.region)] or account_ids


def unfit_accounts(tx: Transaction, job: NewJob, caller: Caller, usable: dict[str, list[UUID]]) -> list[UUID]:
    """The accounts usable for the caller that have not the model, by their region and by what upstream lists for them.

    Avoided, not the others named: an account that joins the pool later may take the job. Raises
    `no_account_available` when none has it.
    """
    model = None if job.account_ids else model_of(job)
    if model is None or all(model.offered_in(region) for region in usable):
        return []
    keys = {model.key, model.key_cn} if isinstance(model, ImageModel) else {model.key}
    listed = {listing.account_id for listing in _listings(tx, caller) if listing.has(*keys)}
    unfit = [a for region, ids in usable.items() if not model.offered_in(region) for a in ids if a not in listed]
    if len(unfit) == sum(map(len, usable.values())):
        where = ", ".join(sorted(model.where))
        message = (
            f"No account that you may use is in a region that has model {job.model!r} (it is in: {where}). Add one."
        )
        raise DreameryError("no_account_available", message, param="model", retry_after=60)
    return unfit


def _listings(tx: Transaction, caller: Caller) -> list[Listing]:
    return model_listings.listings(tx, [], user_id=caller.user_id, choice=caller.account_choice)


def _nudge(job_id: UUID, kind: str, account_ids: list[UUID]) -> None:
    if kind == "chat":
        # Each conversation takes a thread of its own, so each gets its message.
        celery_app.nudge_converse(job_id=job_id)
        return
    # With one account there is nothing to choose, so the worker need not look for the best.
    if len(account_ids) == 1:
        celery_app.nudge_submit_soon(account_ids[0])
    else:
        celery_app.nudge_submit(job_id=job_id)
