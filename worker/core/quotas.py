"""Limits of users and keys: their names, what an administrator may set, and which of them apply to a caller.

Counting is done in `worker/db/users/quotas.py`, and for requests per minute in `worker/messaging/rate_limits.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from worker.core.settings import Settings

Scope = Literal["user", "key"]
# In the database and in bodies: no limit, also where the platform has one by default.
UNLIMITED: Literal["unlimited"] = "unlimited"
Value = int | Literal["unlimited"]

REQUESTS = "requests_per_minute"
OPEN_JOBS = "open_jobs"
# What is counted over a day or a month.
PERIODIC = ("jobs_per_day", "jobs_per_month", "credits_per_day", "credits_per_month")
NAMES = (REQUESTS, OPEN_JOBS, *PERIODIC)
# Of requests per minute the headers of every answer tell how many are left: nothing to warn of besides.
SOFT_NAMES = (OPEN_JOBS, *PERIODIC)


@dataclass(frozen=True, slots=True)
class OwnLimits:
    """What was set for one user or key, by name: `hard` refuses, `soft` warns. A name that is absent is not set."""

    hard: Mapping[str, Value] = field(default_factory=dict)
    soft: Mapping[str, Value] = field(default_factory=dict)


NO_LIMITS = OwnLimits(hard=dict.fromkeys(NAMES, UNLIMITED))


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit in force. At least one of `soft` and `hard` is a number."""

    scope: Scope
    name: str
    soft: int | None
    hard: int | None

    @property
    def full_name(self) -> str:
        """Such as `key.jobs_per_day`."""
        return f"{self.scope}.{self.name}"

    @property
    def counts_credits(self) -> bool:
        """Whether it counts credits, not jobs."""
        return self.name.startswith("credits_")


def _number(value: Value | None) -> int | None:
    return None if value is None or value == UNLIMITED else int(value)


def platform_defaults(settings: Settings) -> dict[str, Value]:
    """What applies to every user without a value of their own, and to callers with session ids; 0 = no limit."""
    values = {name: getattr(settings, name) for name in (REQUESTS, *PERIODIC)}
    return {name: value for name, value in values.items() if value}


def effective_limits(user: OwnLimits, key: OwnLimits, settings: Settings) -> list[Limit]:
    """The limits of a caller. Keys have none but their own; those of the user count all keys together.

    Without a soft value of its own, a hard one warns at `BUDGET_WARN_PERCENT` of it.
    """
    found = []
    scopes: list[tuple[Scope, Mapping[str, Value], OwnLimits]] = [
        ("user", platform_defaults(settings), user),
        ("key", {}, key),
    ]
    for scope, defaults, own in scopes:
        for name in NAMES:
            hard = _number(own.hard.get(name, defaults.get(name)))
            soft = _number(own.soft.get(name))
            if name not in own.soft and name in SOFT_NAMES and hard is not None and settings.budget_warn_percent:
                soft = -(-hard * settings.budget_warn_percent // 100)
            if hard is not None or soft is not None:
                found.append(Limit(scope=scope, name=name, soft=soft, hard=hard))
    return found
