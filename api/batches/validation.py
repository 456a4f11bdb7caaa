"""Checks all lines of a batch, and what it would cost. It writes nothing but the inputs that lines contain."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from api.auth.caller import Caller
from api.batches.planning import plan_line
from api.batches.reading import Line
from api.generation.acceptance import GenerationPlan
from api.generation.account_assignment import assign_accounts
from api.generation.media.reference_images import delete_stored_inputs
from api.generation.quotas import with_cost_limit
from api.http.clients.storage_threads import in_storage_thread
from worker.core.catalog.money import CostLimit, to_amount
from worker.core.errors import DreameryError
from worker.core.settings import get_settings
from worker.db.engine import transaction
from worker.db.jobs.inputs import NewInput
from worker.db.jobs.state_machine import NewJob

# Errors that a batch keeps. Its `total` counts all.
MOST_ERRORS = 500
_LINES_PER_READ = 20
_LINES_PER_TRANSACTION = 200


@dataclass(slots=True)
class PlannedLine:
    """A valid line with its jobs."""

    line: Line
    plan: GenerationPlan


@dataclass(slots=True)
class CheckedBatch:
    """The lines of a batch: all are planned, or there are errors."""

    planned: list[PlannedLine] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    error_count: int = 0
    lines: int = 0
    price: dict[str, Any] | None = None

    def add_error(self, error: DreameryError, line: Line | None = None) -> None:
        """Record why a line, or the whole batch, is refused."""
        self.error_count += 1
        if len(self.errors) < MOST_ERRORS:
            n, custom_id = (line.n, line.custom_id) if line is not None else (None, None)
            where = {"line": n, "custom_id": custom_id}
            self.errors.append({"code": error.code, "message": error.message, "param": error.param, **where})

    @property
    def inputs(self) -> list[NewInput]:
        """The stored inputs of all lines."""
        return [one for planned in self.planned for one in planned.plan.inputs]

    @property
    def jobs(self) -> list[NewJob]:
        """The jobs of all lines, in order."""
        return [job for planned in self.planned for job in planned.plan.jobs]

    def error_object(self) -> dict[str, Any] | None:
        """Return the errors as the row of a batch keeps them."""
        return {"data": self.errors, "total": self.error_count} if self.error_count else None


Progress = Callable[[int], Awaitable[None]]


async def _no_progress(_lines: int) -> None:
    pass


async def check_lines(
    lines: Iterator[Line], caller: Caller, *, limits: "BatchLimits", progress: Progress = _no_progress
) -> CheckedBatch:
    """Plan and price all lines. After an error nothing more is planned, but every line is checked.

    `progress` is called with the number of lines that were read; it may raise to end the check.
    """
    checked, ids = CheckedBatch(), set[str]()
    try:
        async for line in _read_apart(lines, checked):
            checked.lines += 1
            if checked.lines > get_settings().batch_max_lines:
                message = f"A batch has at most {get_settings().batch_max_lines} lines. Split the file."
                checked.add_error(DreameryError("invalid_value", message, param="input_file_id"))
                break
            await _check_line(line, caller, checked, ids)
            await progress(checked.lines)
            # Other requests of this process come in between.
            await asyncio.sleep(0)
        if not checked.lines and not checked.error_count:
            message = "The batch has no lines."
            checked.add_error(DreameryError("invalid_value", message, param="input_file_id"))
        if not checked.error_count:
            await _price(checked, caller, progress)
        if not checked.error_count:
            checked.price = _sum_up(checked)
            for error in limits.errors(checked.price):
                checked.add_error(error)
    except BaseException:
        await in_storage_thread(delete_stored_inputs, checked.inputs)
        raise
    return checked


async def _read_apart(lines: Iterator[Line], checked: CheckedBatch) -> Any:
    """Yield lines that a thread reads and parses, a few at a time."""
    while True:
        try:
            some = await in_storage_thread(lambda: list(islice(lines, _LINES_PER_READ)))
        except DreameryError as error:
            checked.add_error(error)
            return
        for line in some:
            yield line
        if len(some) < _LINES_PER_READ:
            return


async def _check_line(line: Line, caller: Caller, checked: CheckedBatch, ids: set[str]) -> None:
    if line.error is not None:
        checked.add_error(line.error, line)
        return
    if line.custom_id in ids:
        message = f"Another line has the `custom_id` {str(line.custom_id)[:60]!r} too."
        checked.add_error(DreameryError("invalid_value", message, param="custom_id"), line)
        return
    ids.add(line.custom_id or "")
    try:
        plan = await plan_line(line, caller)
    except DreameryError as error:
        checked.add_error(error, line)
        return
    # The body may contain files, and is not needed any more.
    checked.planned.append(PlannedLine(replace(line, body={}), plan))


async def _price(checked: CheckedBatch, caller: Caller, progress: Progress) -> None:
    """Give the jobs of all lines their accounts and prices, a few lines per transaction."""
    for start in range(0, len(checked.planned), _LINES_PER_TRANSACTION):
        some = checked.planned[start : start + _LINES_PER_TRANSACTION]
        for one, error in await in_storage_thread(_assign, some, caller):
            checked.add_error(error, one.line)
        await progress(checked.lines)


def _assign(lines: list[PlannedLine], caller: Caller) -> list[tuple[PlannedLine, DreameryError]]:
    """Assign the lines together; after an error each alone, to tell which of them cannot run."""
    try:
        _assign_together(lines, caller)
    except DreameryError as error:
        if len(lines) == 1:
            return [(lines[0], error)]
        return [found for one in lines for found in _assign([one], caller)]
    return []


def _assign_together(lines: list[PlannedLine], caller: Caller) -> None:
    with transaction() as tx:
        jobs = assign_accounts(tx, [job for one in lines for job in one.plan.jobs], caller, may_wait=True)
    by_id = {job.id: job for job in jobs}
    limited = [with_cost_limit(caller, one.plan.max_cost, [by_id[job.id] for job in one.plan.jobs]) for one in lines]
    for one, own in zip(lines, limited, strict=True):
        one.plan = replace(one.plan, jobs=own)


def _sum_up(checked: CheckedBatch) -> dict[str, Any]:
    """Return the price of a batch: in total, by currency and by model."""
    jobs = checked.jobs
    money: Counter[str] = Counter()
    models: dict[tuple[str, str | None], list[NewJob]] = {}
    requests: Counter[tuple[str, str | None]] = Counter()
    for job in jobs:
        if job.currency is not None:
            money[job.currency] += job.price or 0
        models.setdefault((job.model, job.currency), []).append(job)
    for one in checked.planned:
        requests[one.plan.jobs[0].model, one.plan.jobs[0].currency] += 1
    return {
        "requests": len(checked.planned),
        "jobs": len(jobs),
        "credits": sum(job.price or 0 for job in jobs if job.currency is None),
        "money": [{"currency": name, "amount": to_amount(amount)} for name, amount in sorted(money.items())],
        "known": all(job.price is not None for job in jobs),
        "models": [
            _model_price(model, currency, requests[model, currency], of_model)
            for (model, currency), of_model in sorted(models.items(), key=lambda item: (item[0][0], item[0][1] or ""))
        ],
    }


def _model_price(model: str, currency: str | None, requests: int, jobs: list[NewJob]) -> dict[str, Any]:
    known = all(job.price is not None for job in jobs)
    price = sum(job.price or 0 for job in jobs) if known else None
    in_credits = currency is None
    return {
        "model": model,
        "requests": requests,
        "jobs": len(jobs),
        "credits": price if in_credits else None,
        "currency": currency,
        "cost": None if in_credits or price is None else to_amount(price),
    }


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The most that a batch may cost; None = no limit."""

    money: CostLimit | None = None
    credits: int | None = None

    def errors(self, price: dict[str, Any]) -> Iterator[DreameryError]:
        """Yield why a price is too high."""
        if self.money is not None and price["money"]:
            yield from self._money_errors(price)
        if self.credits is not None and any(one["currency"] is None for one in price["models"]):
            if any(one["currency"] is None and one["credits"] is None for one in price["models"]):
                message = "The limit `max_credits` applies, but the price of some requests is not known."
                yield _too_much(message, "max_credits")
            elif price["credits"] > self.credits:
                message = f"The limit `max_credits` is {self.credits}, and the batch may cost {price['credits']}."
                yield _too_much(message, "max_credits")

    def _money_errors(self, price: dict[str, Any]) -> Iterator[DreameryError]:
        limit, found = self.money, price["money"]
        if limit is None:
            return
        names = ", ".join(one["currency"] for one in found)
        if len(found) > 1 or limit.currency not in {None, found[0]["currency"]}:
            yield _too_much(f"`max_cost` is in one currency, but the batch pays in {names}.", "max_cost")
        elif any(one["currency"] is not None and one["cost"] is None for one in price["models"]):
            yield _too_much("The limit `max_cost` applies, but the price of some requests is not known.", "max_cost")
        elif found[0]["amount"] > (most := to_amount(limit.amount) or 0):
            message = f"The limit `max_cost` is {most} {names}, and the batch may cost {found[0]['amount']} {names}."
            yield _too_much(message, "max_cost")


def _too_much(message: str, param: str) -> DreameryError:
    return DreameryError("max_cost_exceeded", f"{message} Request less, or raise the limit.", param=param)
