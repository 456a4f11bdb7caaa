"""The most that a request may cost: of the request itself (`max_cost`, `X-Max-Cost`), of its key and of its user.

It is compared with the price of the jobs before they are accepted, so nothing was submitted when it refuses. It counts
money; jobs for an upstream's own credits cost none.
"""

from collections.abc import Sequence

from api.auth.dependencies import Caller
from worker.core.catalog.money import CostLimit, to_amount
from worker.core.errors import DreameryError
from worker.core.quotas import MAX_COST
from worker.db.jobs.state_machine import NewJob

_SUBJECTS = {"user": "of your user", "key": "of this API key"}


def cost_error(caller: Caller, requested: CostLimit | None, jobs: Sequence[NewJob]) -> DreameryError | None:
    """Return why these priced jobs of one request may not be accepted; None = they may."""
    paid = [job for job in jobs if job.currency is not None]
    limits = _limits(caller, requested)
    if not paid or not limits:
        return None
    currency, cost = paid[0].currency, sum(job.price or 0 for job in paid)
    known = all(job.price is not None for job in paid)
    for limit, whose in limits:
        if limit.currency is not None and limit.currency != currency:
            message = f"`max_cost` is in {limit.currency}, but the accounts of this request pay in {currency}."
            return DreameryError("max_cost_exceeded", f"{message} Name that currency, or none.", param=MAX_COST)
        if not known:
            message = f"The limit `max_cost` {whose} applies, but the price of this request is not known."
            return DreameryError(
                "max_cost_exceeded", f"{message} Leave the limit out, or use another model.", param=MAX_COST
            )
        if cost > limit.amount:
            most, needed = f"{to_amount(limit.amount)} {currency}", f"{to_amount(cost)} {currency}"
            message = f"The limit `max_cost` {whose} is {most}, and this request may cost {needed}."
            return DreameryError("max_cost_exceeded", f"{message} Request less, or raise the limit.", param=MAX_COST)
    return None


def _limits(caller: Caller, requested: CostLimit | None) -> list[tuple[CostLimit, str]]:
    own = [(one, "of this request") for one in (requested, caller.max_cost) if one is not None]
    return own + [
        (CostLimit(limit.hard), _SUBJECTS[limit.scope])
        for limit in caller.limits
        if limit.name == MAX_COST and limit.hard is not None
    ]
