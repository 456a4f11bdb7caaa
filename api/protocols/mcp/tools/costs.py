"""What a call would cost, and the consent of the user to a cost above a limit.

The limit protects a user from an agent that spends more than the user thinks. It is no permission: what a key may spend
is limited by its budgets and its `max_cost`, which every call obeys anyway.
"""

from dataclasses import dataclass

from api.protocols.mcp.gateways.protocol import Json, call_json
from api.protocols.mcp.tools.call import Call
from api.protocols.mcp.tools.inputs import Creating
from worker.core.catalog.consent_limits import read_consent_limits
from worker.core.errors import DreameryError

CREDITS = "credits"
_MOST_MONEY = 1_000_000


@dataclass(frozen=True, slots=True)
class Cost:
    """`amount` None = no price is known; `unit`: credits or a currency."""

    amount: float | None
    unit: str

    def __str__(self) -> str:
        return "an unknown cost" if self.amount is None else f"{self.amount:g} {self.unit}"


async def estimate_cost(call: Call, endpoint: str, body: Json) -> Json:
    """Return the estimate of a call. Raises RefusedError when the call itself would be refused as invalid."""
    found: Json = await call_json(call.gateway, "POST", "/v1/estimate", body={"endpoint": endpoint, "body": body})
    return found


def cost_of(estimate: Json) -> Cost:
    """Return the cost of an estimate."""
    if not estimate["known"]:
        return Cost(None, estimate.get("currency") or CREDITS)
    if estimate.get("currency"):
        return Cost(estimate["cost"], estimate["currency"])
    return Cost(estimate["credits"], CREDITS)


def needs_consent(call: Call, cost: Cost) -> float | None:
    """Return the limit that a cost is above, None = it is not. An unknown cost is above every limit."""
    limits = read_consent_limits(call.settings.confirm_above)
    limit = limits.get(cost.unit.lower(), limits.get(""))
    if limit is None or (cost.amount is not None and cost.amount <= limit):
        return None
    return limit


async def agree_on_cost(call: Call, arguments: Creating, endpoint: str, body: Json) -> Json:
    """Check the cost of a call before it is made, and return the fields that hold it to that cost.

    Raises `max_cost_exceeded`, `confirmation_required` or `cost_not_confirmed`.
    """
    if arguments.max_cost is None and not read_consent_limits(call.settings.confirm_above):
        return {}
    estimate = await estimate_cost(call, endpoint, body)
    cost = cost_of(estimate)
    _check_max_cost(arguments.max_cost, cost)
    limit = needs_consent(call, cost)
    if limit is not None and not _is_confirmed(arguments.confirm_cost, cost):
        await _ask(call, cost, limit)
    return _hold(arguments.max_cost, cost)


def _check_max_cost(most: float | None, cost: Cost) -> None:
    if most is None:
        return
    if cost.amount is None:
        message = "The price of this request is not known, so `max_cost` cannot be kept. Leave it out."
        raise DreameryError("max_cost_exceeded", message, param="max_cost")
    if cost.amount > most:
        message = f"This request may cost {cost}, more than `max_cost`. Nothing was submitted."
        raise DreameryError("max_cost_exceeded", message, param="max_cost")


def _is_confirmed(confirmed: float | None, cost: Cost) -> bool:
    """Whether the caller named a cost that covers this one. For an unknown cost, any number says that it is known."""
    return confirmed is not None and (cost.amount is None or confirmed >= cost.amount)


async def _ask(call: Call, cost: Cost, limit: float) -> None:
    answer = await call.confirmation.ask(f"This generation may cost {cost}. Generate it?", cost.amount)
    if answer is None:
        value = f"{cost.amount:g}" if cost.amount is not None else "0"
        message = (
            f"This request may cost {cost}; above {limit:g} {cost.unit} the user has to agree. Nothing was submitted. "
            f"Ask the user, then repeat the call with `confirm_cost`: {value}."
        )
        raise DreameryError("confirmation_required", message, param="confirm_cost")
    if not answer:
        raise DreameryError("cost_not_confirmed", f"The user did not agree to {cost}. Nothing was submitted.")


def _hold(most: float | None, cost: Cost) -> Json:
    """Let the API refuse money above what was agreed, if a price changes in between. Credits cannot be held."""
    if cost.amount is None or cost.unit == CREDITS:
        return {}
    return {"max_cost": min(cost.amount if most is None else most, _MOST_MONEY)}
