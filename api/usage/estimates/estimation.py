"""Estimates cost and time of a generation call: it is planned like the real call, but no job is created."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import Caller
from api.chat.agent_planning import plan_conversation
from api.chat.planning import detect_background_call, plan_chat
from api.chat.schemas import ChatRequest
from api.generation import quotas
from api.generation.acceptance import GenerationPlan, reject_while_draining
from api.generation.account_assignment import (
    accounts_without_model,
    choose_currency,
    find_catalog_model,
    usable_accounts,
)
from api.generation.model_availability import read_offer, token_groups
from api.generation.models.agent import AGENT
from api.generation.reference_images import delete_stored_inputs
from api.http.bodies.received import ReceivedBody
from api.http.body_parsing import validate_body
from api.http.errors import error_body
from api.images.planning import plan_images
from api.images.schemas import ImageGenerationRequest
from api.jobs.eta import Eta, estimate_new_job_eta
from api.usage.estimates.schemas import EstimateRequest
from api.videos.planning import plan_videos, require_single_video
from api.videos.schemas import VideoGenerationRequest
from worker.core.catalog.models import get_catalog
from worker.core.catalog.money import CostLimit, to_amount
from worker.core.catalog.pricing import Price, shape_of
from worker.core.errors import ERRORS, DreameryError
from worker.core.messages.cooldown import add_cooldown
from worker.core.settings import get_settings
from worker.db.accounts import accounts
from worker.db.accounts.eligibility import Needs
from worker.db.credits.learned_prices import PriceList
from worker.db.engine import Transaction, transaction
from worker.db.jobs import durations
from worker.db.jobs.queries import QueueCapacity
from worker.db.jobs.state_machine import NewJob
from worker.db.scheduling import availability_estimate, fair_queue
from worker.db.scheduling.availability_estimate import Availability, JobRequirements
from worker.db.scheduling.unschedulable import LONGEST_COOLDOWN_SECONDS

_NO_ACCOUNTS = Availability(0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0, None, None)
Fields = dict[str, Any]


async def estimate(body: EstimateRequest, caller: Caller, received: ReceivedBody) -> Fields:
    """Return the estimate. Raises the errors that the real call would raise about the request."""
    plan = await _PLANS[body.endpoint](body.endpoint, body.body, caller, received)
    if plan is None:
        return _answer(body.endpoint, str(body.body.get("model") or AGENT), [])
    try:
        return await run_in_threadpool(partial(_estimate, body.endpoint, plan, caller))
    finally:
        # Planning stored the inputs, as in the real call.
        await run_in_threadpool(delete_stored_inputs, plan.inputs)


async def _plan_images(path: str, body: Fields, caller: Caller, received: ReceivedBody) -> GenerationPlan:
    request = await received.search(partial(validate_body, body, ImageGenerationRequest))
    return await plan_images(path, request, caller, required=path != "/v1/images/generations")


async def _plan_videos(path: str, body: Fields, caller: Caller, received: ReceivedBody) -> GenerationPlan:
    request = await received.search(partial(validate_body, body, VideoGenerationRequest))
    return await plan_videos(
        path, request if path == "/v1/videos/generations" else require_single_video(request), caller
    )


async def _plan_chat(path: str, body: Fields, caller: Caller, received: ReceivedBody) -> GenerationPlan | None:
    """Return the plan of a chat; None for a background call of a front end, which is answered without a job."""
    request = await received.search(partial(validate_body, body, ChatRequest))
    agent = request.model == AGENT
    enabled = get_settings().answer_client_probes and not request.run_async
    detect = partial(detect_background_call, request, choice=request.dreamery_job, enabled=enabled)
    if await received.search(detect) is not None:
        return None
    if agent:
        return plan_conversation(path, request, caller, await read_offer(caller))
    return (await plan_chat(path, request, caller, run=received.search)).generation


_PLANS: dict[str, Callable[[str, Fields, Caller, ReceivedBody], Awaitable[GenerationPlan | None]]] = {
    "/v1/images/generations": _plan_images,
    "/v1/images/edits": _plan_images,
    "/v1/images/compositions": _plan_images,
    "/v1/videos": _plan_videos,
    "/v1/videos/generations": _plan_videos,
    "/v1/video/generations": _plan_videos,
    "/v1/chat/completions": _plan_chat,
}


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The accounts that a job may use, and the regions whose prices apply."""

    account_ids: list[UUID]  # empty without unknown sessions = the pool
    avoid: list[UUID]
    unknown_sessions: int  # session ids without a row
    places: list[str]
    currency: str | None = None


def _estimate(endpoint: str, plan: GenerationPlan, caller: Caller) -> Fields:
    first = plan.jobs[0]
    with transaction() as tx:
        prices = PriceList(tx, user_id=caller.user_id, choice=caller.account_choice)
        candidates, no_account = _try_find_candidates(tx, first, caller, prices)
        jobs = _price_jobs(plan, prices, candidates)
        refusals = _refusals(tx, caller, jobs, plan.max_cost)
        if no_account is not None:
            return _answer(endpoint, first.model, jobs, refusals=(*refusals, no_account))
        availability = availability_estimate.estimate_availability(
            tx, _job_requirements(tx, first, caller, candidates, jobs)
        )
        duration_stats = durations.find_duration_stats(tx, first.kind, first.model, first.params)
    capacity = QueueCapacity(
        availability.slots, availability.busy, availability.submits_per_minute, availability.free_seconds
    )
    eta = estimate_new_job_eta(first.kind, duration_stats, capacity, availability.jobs_ahead + len(plan.jobs) - 1)
    if (error := _unschedulable_error(availability)) is not None:
        refusals.append(error)
    elif availability.credits_left is not None and availability.credits_left < sum(
        price.credits for _, price in jobs if price
    ):
        message = "The accounts do not have enough credits for all jobs of this call; some would fail."
        refusals.append(DreameryError("insufficient_quota", message))
    return _answer(
        endpoint,
        first.model,
        jobs,
        eta=eta if error is None else None,
        time_is_learned=duration_stats is not None,
        availability=availability,
        refusals=tuple(refusals),
    )


def _refusals(
    tx: Transaction, caller: Caller, jobs: list[tuple[NewJob, Price | None]], max_cost: CostLimit | None
) -> list[DreameryError]:
    """Return the errors that accepting these jobs would raise, regardless of accounts."""
    errors = quotas.quota_errors(tx, caller, [(job.currency, price.credits if price else None) for job, price in jobs])
    priced = [replace(job, price=price.credits if price else None) for job, price in jobs]
    if (too_much := quotas.cost_error(caller, max_cost, priced)) is not None:
        errors.append(too_much)
    try:
        reject_while_draining(tx)
    except DreameryError as error:
        errors.insert(0, error)
    return errors


def _try_find_candidates(
    tx: Transaction, job: NewJob, caller: Caller, prices: PriceList
) -> tuple[_Candidates, DreameryError | None]:
    try:
        return _find_candidates(tx, job, caller, prices), None
    except DreameryError as error:
        return _Candidates([], [], 0, []), error


def _job_requirements(
    tx: Transaction, first: NewJob, caller: Caller, candidates: _Candidates, jobs: list[tuple[NewJob, Price | None]]
) -> JobRequirements:
    needs = Needs(first.providers, candidates.currency, first.model)
    request = fair_queue.QueueRequest(first.kind, candidates.account_ids, candidates.avoid, first.account_choice, needs)
    position = fair_queue.preview(tx, caller.owner, caller.user_id, request)
    return JobRequirements(
        kind=first.kind,
        price=max((price.credits for _, price in jobs if price), default=None),
        user_id=caller.user_id,
        account_choice=caller.account_choice,
        account_ids=candidates.account_ids,
        avoid=candidates.avoid,
        place=position.place,
        unknown_sessions=candidates.unknown_sessions,
        needs=needs,
    )


def _find_candidates(tx: Transaction, job: NewJob, caller: Caller, prices: PriceList) -> _Candidates:
    """Return the accounts as in acceptance, without rows for unknown sessions. Raises `no_account_available`."""
    if not caller.tokens:
        usable = usable_accounts(tx, caller, [job])
        avoid = accounts_without_model(tx, job, caller, usable)
        currency = choose_currency(job, [one.group for one in usable])
        return _Candidates(
            job.account_ids, avoid, 0, prices.places(job.account_ids, avoid=avoid, providers=job.providers), currency
        )
    known, model = accounts.find_tokens(tx, [digest for digest, _ in caller.tokens]), find_catalog_model(job)
    own = [(h, t) for h, t in caller.tokens if t.provider in job.providers]
    tokens = [(h, t) for h, t in own if model is None or model.is_available_in(t.region)] or own
    if job.account_ids:
        tokens = [(h, t) for h, t in tokens if known.get(h) in job.account_ids]
    ids = [known[h] for h, _ in tokens if h in known]
    regions = {token.region for h, token in tokens if h not in known}
    places = sorted({*regions, *(prices.places(ids, avoid=[]) if ids else [])})
    return _Candidates(ids, [], len(tokens) - len(ids), places, choose_currency(job, token_groups(caller)))


def _price_jobs(plan: GenerationPlan, prices: PriceList, candidates: _Candidates) -> list[tuple[NewJob, Price | None]]:
    jobs = [replace(job, currency=candidates.currency) for job in plan.jobs]
    return [(job, _price(job, prices, candidates)) for job in jobs]


def _price(job: NewJob, prices: PriceList, candidates: _Candidates) -> Price | None:
    if job.currency is None:
        return prices.price_of(kind=job.kind, model=job.model, params=job.params, places=candidates.places)
    return prices.price_of_job(
        kind=job.kind,
        model=job.model,
        params=job.params,
        account_ids=candidates.account_ids,
        avoid=candidates.avoid,
        providers=job.providers,
        currency=job.currency,
    )


def _unschedulable_error(availability: Availability) -> DreameryError | None:
    """Return why no account would run the job; None if one would."""
    if availability.usable == 0:
        return DreameryError("insufficient_quota" if availability.insufficient else "no_account_available")
    if availability.cooldown_seconds > LONGEST_COOLDOWN_SECONDS:
        code, now = availability.cooldown_code or "no_account_available", datetime.now(UTC)
        until = now + timedelta(seconds=availability.cooldown_seconds)
        return DreameryError(code, add_cooldown(ERRORS[code].message, until, now))
    return None


def _answer(
    endpoint: str,
    model: str,
    jobs: list[tuple[NewJob, Price | None]],
    *,
    eta: Eta | None = None,
    time_is_learned: bool = False,
    availability: Availability = _NO_ACCOUNTS,
    refusals: tuple[DreameryError, ...] = (),
) -> Fields:
    known = all(price is not None for _, price in jobs)
    total = sum(price.credits for _, price in jobs if price) if known else None
    return {
        "object": "estimate",
        "endpoint": endpoint,
        "model": model,
        "jobs": [_job(job, price) for job, price in jobs],
        **_cost(jobs[0][0].currency if jobs else None, total),
        "known": known,
        "eta": {"p50": eta.p50, "p90": eta.p90} if eta is not None else None,
        "time_source": None if eta is None else "learned" if time_is_learned else "default",
        "accounts": {
            "candidates": availability.accounts,
            "at_all": availability.usable,
            "now": availability.available_now,
        },
        "refusals": [
            {**error_body(error.kind, error.message, error.param)["error"], "status": error.kind.status}
            for error in refusals
        ],
    }


def _cost(currency: str | None, price: int | None) -> Fields:
    """Return a cost in credits, which are thousandths of the currency if there is one, and as an amount of money."""
    return {"credits": price, "currency": currency, "cost": to_amount(price) if currency else None}


def _job(job: NewJob, price: Price | None) -> Fields:
    shape = shape_of(job.kind, job.model, job.params, get_catalog())
    return {
        "kind": job.kind,
        "model": job.model,
        "resolution": shape.size if shape else None,
        "pictures": shape.units if shape and job.kind == "image" else None,
        "seconds": shape.units if shape and job.kind == "video" else None,
        **_cost(job.currency, price.credits if price else None),
        "source": price.source if price else "unknown",
        "learned_at": int(price.at.timestamp()) if price and price.at else None,
    }
