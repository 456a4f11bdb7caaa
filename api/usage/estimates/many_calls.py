"""Estimates many generation calls together: a line for each, the totals, and the limits for all of them.

Each call is planned like the real one. Whatever concerns one call is in its line; whatever only all of them together
exceed is a refusal of the whole.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.generation import quotas
from api.generation.acceptance import reject_while_draining
from api.generation.media.reference_images import delete_stored_inputs
from api.http.bodies.received import ReceivedBody
from api.http.errors import error_body, request_error
from api.jobs.eta import Eta, estimate_new_job_eta
from api.usage.estimates.expected_jobs import (
    Candidates,
    PricedJob,
    job_requirements,
    price_jobs,
    try_find_candidates,
    unschedulable_error,
)
from api.usage.estimates.planning import plan_call
from api.usage.estimates.schemas import PlannedCall
from worker.core.catalog.money import CostLimit, to_amount
from worker.core.errors import DreameryError
from worker.db.credits.learned_prices import PriceList
from worker.db.engine import Transaction, transaction
from worker.db.jobs import durations
from worker.db.jobs.queries import QueueCapacity
from worker.db.jobs.state_machine import NewJob
from worker.db.scheduling import availability_estimate
from worker.db.scheduling.availability_estimate import Availability

Fields = dict[str, Any]
# Planning runs on the event loop: others get their turn after so many calls.
_PLANNED_AT_ONCE = 10


@dataclass(slots=True)
class _Line:
    """One call: its jobs once they are planned and priced, or its error."""

    call: PlannedCall
    jobs: list[NewJob] = field(default_factory=list)
    priced: list[PricedJob] = field(default_factory=list)
    n: int = 0
    max_cost: CostLimit | None = None
    error: DreameryError | None = None


@dataclass(slots=True)
class _Group:
    """Calls whose jobs may use the same accounts: the accounts, what is free there, and the error if nothing is."""

    candidates: Candidates
    error: DreameryError | None
    lines: list[_Line] = field(default_factory=list)
    availability: Availability | None = None


async def estimate_many(calls: Sequence[PlannedCall], caller: Caller, received: ReceivedBody) -> Fields:
    """Return the estimate of all calls. An invalid call is an error in its line."""
    lines = []
    for n, call in enumerate(calls):
        lines.append(await _plan(call, caller, received))
        if n % _PLANNED_AT_ONCE == 0:
            await asyncio.sleep(0)
    return await run_in_threadpool(partial(_estimate, lines, caller))


async def _plan(call: PlannedCall, caller: Caller, received: ReceivedBody) -> _Line:
    try:
        plan = await plan_call(call.endpoint, call.body, caller, received)
    except RequestValidationError as error:
        return _Line(call, error=request_error(error))
    except DreameryError as error:
        if error.status >= 500:
            raise  # no fault of this call
        return _Line(call, error=error)
    if plan is None:
        return _Line(call)
    # One call at a time has stored inputs, however many there are.
    await run_in_threadpool(delete_stored_inputs, plan.inputs)
    return _Line(call, plan.jobs, n=plan.n, max_cost=plan.max_cost)


def _estimate(lines: list[_Line], caller: Caller) -> Fields:
    with transaction() as tx:
        prices = PriceList(tx, user_id=caller.user_id, choice=caller.account_choice)
        groups = _group(tx, [line for line in lines if line.jobs], caller, prices)
        for group in groups:
            _price(group, caller, prices)
            if group.error is None:
                _look_for_accounts(tx, group, caller)
        sound = [job for line in lines if line.error is None for job in line.priced]
        refusals = _refusals(tx, caller, sound)
        refusals += [error for group in groups if (error := _too_few_credits(group)) is not None]
        eta = _eta(tx, groups)
    return _answer(lines, refusals, eta)


def _group(tx: Transaction, lines: Iterable[_Line], caller: Caller, prices: PriceList) -> list[_Group]:
    groups: dict[tuple[object, ...], _Group] = {}
    for line in lines:
        job = line.jobs[0]
        key = (job.kind, job.model, tuple(job.providers), tuple(job.account_ids), job.account_choice)
        if key not in groups:
            groups[key] = _Group(*try_find_candidates(tx, job, caller, prices))
        groups[key].lines.append(line)
    return list(groups.values())


def _price(group: _Group, caller: Caller, prices: PriceList) -> None:
    for line in group.lines:
        line.priced = price_jobs(line.jobs, prices, group.candidates)
        with_prices = [replace(job, price=price.credits if price else None) for job, price in line.priced]
        line.error = group.error or quotas.cost_error(caller, line.max_cost, with_prices)


def _look_for_accounts(tx: Transaction, group: _Group, caller: Caller) -> None:
    """Find what is free for a group; if no account would run its jobs, that is the error of its lines."""
    priced = [job for line in group.lines for job in line.priced]
    needs = job_requirements(tx, priced[0][0], caller, group.candidates, priced)
    group.availability = availability_estimate.estimate_availability(tx, needs)
    group.error = unschedulable_error(group.availability)
    for line in group.lines:
        line.error = line.error or group.error


def _refusals(tx: Transaction, caller: Caller, jobs: list[PricedJob]) -> list[DreameryError]:
    """Return the errors that accepting all these jobs together would raise."""
    errors = []
    try:
        reject_while_draining(tx)
    except DreameryError as error:
        errors.append(error)
    return errors + quotas.quota_errors(
        tx, caller, [(job.currency, price.credits if price else None) for job, price in jobs]
    )


def _too_few_credits(group: _Group) -> DreameryError | None:
    needed = sum(price.credits for line in group.lines if line.error is None for _, price in line.priced if price)
    left = group.availability.credits_left if group.availability else None
    if left is None or left >= needed:
        return None
    message = "The accounts do not have enough credits for all jobs of these calls; some would fail."
    return DreameryError("insufficient_quota", message)


def _eta(tx: Transaction, groups: list[_Group]) -> Eta | None:
    """Return when the last job ends; None if some would not run. Jobs of one kind wait for each other."""
    found: list[Eta] = []
    waiting: dict[str, int] = {}
    for group in groups:
        if group.availability is None or group.error is not None:
            return None
        first = group.lines[0].jobs[0]
        waiting[first.kind] = waiting.get(first.kind, 0) + sum(len(line.jobs) for line in group.lines)
        free = group.availability
        capacity = QueueCapacity(free.slots, free.busy, free.submits_per_minute, free.free_seconds)
        stats = durations.find_duration_stats(tx, first.kind, first.model, first.params)
        found.append(estimate_new_job_eta(first.kind, stats, capacity, free.jobs_ahead + waiting[first.kind] - 1))
    return max(found, key=lambda eta: eta.p50 or 0, default=None)


def _answer(lines: list[_Line], refusals: list[DreameryError], eta: Eta | None) -> Fields:
    totals = _totals(lines)
    errors = sum(line.error is not None for line in lines)
    # Groups may lack credits for the same reason.
    different = list({(one.code, one.message): one for one in refusals}.values())
    return {
        "object": "estimate.list",
        "requests": [_line(line) for line in lines],
        "results": sum(line.n for line in lines),
        "jobs": sum(len(line.jobs) for line in lines),
        "totals": totals,
        "known": all(one["known"] for one in totals),
        "eta": {"p50": eta.p50, "p90": eta.p90} if eta is not None else None,
        "errors": errors,
        "refusals": [_error(error) for error in different],
        "acceptable": not errors and not different,
    }


def _totals(lines: list[_Line]) -> list[Fields]:
    by_currency: dict[str | None, list[PricedJob]] = {}
    for line in lines:
        for priced in line.priced if line.error is None else ():
            by_currency.setdefault(priced[0].currency, []).append(priced)
    return [
        {
            **_cost(currency, sum(price.credits for _, price in jobs if price)),
            "jobs": len(jobs),
            "known": all(price is not None for _, price in jobs),
        }
        for currency, jobs in sorted(by_currency.items(), key=lambda item: item[0] or "")
    ]


def _line(line: _Line) -> Fields:
    first = line.jobs[0] if line.jobs else None
    order = first.params.get("order", {}) if first else {}
    body = line.call.body
    known = bool(line.priced) and all(one is not None for _, one in line.priced)
    price = sum(one.credits for _, one in line.priced if one) if known else None
    return {
        "endpoint": line.call.endpoint,
        "model": first.model if first else _text(body.get("model")),
        "prompt": order.get("prompt") or _text(body.get("prompt")),
        "ratio": order.get("ratio") or _text(body.get("ratio")),
        "resolution": order.get("resolution") or _text(body.get("resolution")),
        "seconds": order.get("seconds"),
        "results": line.n,
        "jobs": len(line.jobs),
        **_cost(line.priced[0][0].currency if line.priced else None, price),
        "known": known,
        "error": _error(line.error) if line.error else None,
    }


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _cost(currency: str | None, price: int | None) -> Fields:
    return {"credits": price, "currency": currency, "cost": to_amount(price) if currency else None}


def _error(error: DreameryError) -> Fields:
    return {**error_body(error.kind, error.message, error.param)["error"], "status": error.status}
