"""Headers that limit the jobs of a request: `X-Accounts` (whose accounts, of which providers) and `X-Max-Cost`."""

from dataclasses import dataclass

from worker.core.catalog.money import CostLimit, read_cost_limit
from worker.core.catalog.provider_data import all_providers
from worker.core.errors import DreameryError

OWNERS = ("any", "own", "pool")
HEADER = "X-Accounts"
DESCRIPTION = (
    "accounts for the jobs of an API key: `own` = only your own, `pool` = only the platform's, `any` = your own first; "
    "`provider=NAME` = only accounts of this provider; both with a comma between them"
)


MAX_COST_DESCRIPTION = (
    "the most money that the request may cost, such as `0.5` or `0.5 USD`; a request that may cost more is refused, "
    "and nothing is submitted"
)


@dataclass(frozen=True, slots=True)
class AccountChoice:
    """`owners`: any, own or pool. `providers` None = all."""

    owners: str = "any"
    providers: frozenset[str] | None = None


def parse_account_choice(text: str) -> AccountChoice:
    """Return the choice of a header. Raises `invalid_value`."""
    owners: list[str] = []
    providers: list[str] = []
    for part in filter(None, (piece.strip().lower() for piece in text.split(","))):
        name, is_pair, value = part.partition("=")
        if is_pair and name.strip() == "provider" and value.strip() in all_providers():
            providers.append(value.strip())
        elif part in OWNERS:
            owners.append(part)
        else:
            raise _invalid(part)
    if len(set(owners)) > 1:
        raise _invalid(text)
    return AccountChoice(owners[0] if owners else "any", frozenset(providers) or None)


def _invalid(got: str) -> DreameryError:
    names = ", ".join(f"provider={name}" for name in all_providers())
    message = f"`{HEADER}` has one of {', '.join(OWNERS)}, or a provider ({names}), or both; got {got[:40]!r}."
    return DreameryError("invalid_value", message, param=HEADER.lower())


def parse_max_cost(header: str) -> CostLimit | None:
    """Return the most that a request may cost; None = the header is empty. Raises `invalid_value`."""
    try:
        return read_cost_limit(header) if header.strip() else None
    except ValueError as error:
        raise DreameryError("invalid_value", f"X-Max-Cost {error}.", param="x-max-cost") from None
