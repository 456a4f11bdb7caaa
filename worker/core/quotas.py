"""Limits of users and keys: names, values that an administrator can set, and the effective limits of a caller.

Limits in money are set as decimal amounts and compared in thousandths of their currency.
`worker/db/users/quotas.py` counts usage, `worker/messaging/rate_limits.py` counts requests per minute.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from worker.core.catalog.money import CURRENCIES, from_amount, to_amount
from worker.core.settings import Settings

Scope = Literal["user", "key"]
# In the database and in requests: no limit, even if the platform has a default limit.
UNLIMITED: Literal["unlimited"] = "unlimited"
Value = float | Literal["unlimited"]

REQUESTS = "requests_per_minute"
OPEN_JOBS = "open_jobs"
# Limits per day or month: of jobs, of credits of an upstream that has its own, and of money by currency.
_COUNTED = ("jobs", "credits", *map(str.lower, CURRENCIES))
PERIODIC = tuple(f"{what}_per_{period}" for what in _COUNTED for period in ("day", "month"))
# The most money that one request may cost, in the currency in which its jobs run.
MAX_COST = "max_cost"
# Jobs in the queue and at work at a time: further ones wait before the queue (`worker/db/batches/held_jobs.py`).
CONCURRENT_JOBS = "concurrent_jobs"
NAMES = (REQUESTS, OPEN_JOBS, CONCURRENT_JOBS, *PERIODIC, MAX_COST)
# Of a user only: upstream accounts that only this user's jobs run on. Not counted by jobs.
OWN_ACCOUNTS = "own_accounts"
# Requests per minute have no soft limit, because the headers of every response already show the remaining requests;
# `max_cost` has none, because it looks at one request.
SOFT_NAMES = (OPEN_JOBS, *PERIODIC)


@dataclass(frozen=True, slots=True)
class OwnLimits:
    """Limits set for one user or key, by name: `hard` refuses, `soft` warns. An absent name is not set."""

    hard: Mapping[str, Value] = field(default_factory=dict)
    soft: Mapping[str, Value] = field(default_factory=dict)


NO_LIMITS = OwnLimits(hard=dict.fromkeys(NAMES, UNLIMITED))


@dataclass(frozen=True, slots=True)
class Limit:
    """An effective limit. At least one of `soft` and `hard` is set."""

    scope: Scope
    name: str
    soft: int | None
    hard: int | None

    @property
    def full_name(self) -> str:
        """Scope and name, such as `key.jobs_per_day`."""
        return f"{self.scope}.{self.name}"

    @property
    def words(self) -> str:
        """What the limit counts, in the words of messages: `credits per day`, `US dollars per month`."""
        names = {"usd": "US dollars", "cny": "yuan"}
        return " ".join(names.get(part, part) for part in self.name.split("_"))

    @property
    def counts_cost(self) -> bool:
        """Whether the limit counts what jobs cost instead of the jobs."""
        return self.name.startswith("credits_") or self.currency is not None

    @property
    def currency(self) -> str | None:
        """The currency that the limit counts; None = none."""
        return next((one for one in CURRENCIES if self.name.startswith(f"{one.lower()}_")), None)

    def shown(self, value: int | None) -> float | None:
        """Return a value of this limit as callers see it: money as a decimal amount."""
        return to_amount(value) if _is_money(self.name) else value


def _is_money(name: str) -> bool:
    return name == MAX_COST or any(name.startswith(f"{one.lower()}_") for one in CURRENCIES)


def _number(name: str, value: Value | None) -> int | None:
    if value is None or value == UNLIMITED:
        return None
    return from_amount(value) if _is_money(name) else int(value)


def platform_defaults(settings: Settings) -> dict[str, Value]:
    """Return the default limits of users without own values and of callers with session ids, without those set to 0."""
    values = {name: getattr(settings, name) for name in (REQUESTS, *PERIODIC)}
    return {name: value for name, value in values.items() if value}


def effective_limits(user: OwnLimits, key: OwnLimits, settings: Settings) -> list[Limit]:
    """Return the effective limits of a caller. Platform defaults apply to users; a user's limits count all its keys.

    A hard limit without an own soft limit warns at `BUDGET_WARN_PERCENT` of its value.
    """
    found = []
    scopes: list[tuple[Scope, Mapping[str, Value], OwnLimits]] = [
        ("user", platform_defaults(settings), user),
        ("key", {}, key),
    ]
    for scope, defaults, own in scopes:
        for name in NAMES:
            hard = _number(name, own.hard.get(name, defaults.get(name)))
            soft = _number(name, own.soft.get(name))
            if name not in own.soft and name in SOFT_NAMES and hard is not None and settings.budget_warn_percent:
                soft = -(-hard * settings.budget_warn_percent // 100)
            if hard is not None or soft is not None:
                found.append(Limit(scope=scope, name=name, soft=soft, hard=hard))
    return found
