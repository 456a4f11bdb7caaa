"""Estimates cost and time of a generation call: it is planned like the real call, but no job is created."""

from dataclasses import replace
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.generation import quotas
from api.generation.acceptance import GenerationPlan, reject_while_draining
from api.generation.media.reference_images import delete_stored_inputs
from api.generation.models.agent import AGENT
from api.http.bodies.received import ReceivedBody
from api.http.errors import error_body
from api.jobs.eta import Eta, estimate_new_job_eta
from api.usage.estimates.expected_jobs import (
    PricedJob,
    job_requirements,
    price_jobs,
    try_find_candidates,
    unschedulable_error,
)
from api.usage.estimates.planning import plan_call
from api.usage.estimates.schemas import PlannedCall
from worker.core.catalog.models import get_catalog
from worker.core.catalog.money import CostLimit, to_amount
from worker.core.catalog.pricing import Price, shape_of
from worker.core.errors import DreameryError
from worker.db.credits.learned_prices import PriceList
from worker.db.engine import Transaction, transaction
from worker.db.jobs import durations
from worker.db.jobs.queries import QueueCapacity
from worker.db.jobs.state_machine import NewJob
from worker.db.scheduling import availability_estimate
from worker.db.scheduling.availability_estimate import Availability

_NO_ACCOUNTS = Availability(0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0, None, None)
Fields = dict[str, Any]


async def estimate(body: PlannedCall, caller: Caller, received: ReceivedBody) -> Fields:
    """Return the estimate. Raises the errors that the real call would raise about the request."""
    plan = await plan_call(body.endpoint, body.body, caller, received)
    if plan is None:
        return _answer(body.endpoint, str(body.body.get("model") or AGENT), [])
    try:
        return await run_in_threadpool(partial(_estimate, body.endpoint, plan, caller))
    finally:
        # Planning stored the inputs, as in the real call.
        await run_in_threadpool(delete_stored_inputs, plan.inputs)


def _estimate(endpoint: str, plan: GenerationPlan, caller: Caller) -> Fields:
    first = plan.jobs[0]
    with transaction() as tx:
        prices = PriceList(tx, user_id=caller.user_id, choice=caller.account_choice)
        candidates, no_account = try_find_candidates(tx, first, caller, prices)
        jobs = price_jobs(plan.jobs, prices, candidates)
        refusals = _refusals(tx, caller, jobs, plan.max_cost)
        if no_account is not None:
            return _answer(endpoint, first.model, jobs, refusals=(*refusals, no_account))
        availability = availability_estimate.estimate_availability(
            tx, job_requirements(tx, first, caller, candidates, jobs)
        )
        duration_stats = durations.find_duration_stats(tx, first.kind, first.model, first.params)
    capacity = QueueCapacity(
        availability.slots, availability.busy, availability.submits_per_minute, availability.free_seconds
    )
    eta = estimate_new_job_eta(first.kind, duration_stats, capacity, availability.jobs_ahead + len(plan.jobs) - 1)
    if (error := unschedulable_error(availability)) is not None:
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
    tx: Transaction, caller: Caller, jobs: list[PricedJob], max_cost: CostLimit | None
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


def _answer(
    endpoint: str,
    model: str,
    jobs: list[PricedJob],
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
