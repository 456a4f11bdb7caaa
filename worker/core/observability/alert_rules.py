"""The rules of alerts: what each watches, and the threshold that an administrator may change."""

from dataclasses import dataclass
from typing import Literal, get_args

RuleName = Literal[
    "account_credits_low",
    "pool_credits_low",
    "session_expired",
    "queue_stuck",
    "jobs_overdue",
    "storage_low",
    "workers_away",
    "failure_rate_high",
    "charges_in_doubt",
    "backup_old",
]
RULE_NAMES: tuple[RuleName, ...] = get_args(RuleName)
Unit = Literal["credits", "minutes", "hours", "percent", "jobs"]
# The other side of the limit that fires: `below` = less than the threshold is bad.
Side = Literal["below", "above"]

DEFAULT_REPEAT_HOURS = 12.0
MOST_REPEAT_HOURS = 720.0


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its unit, the side of the threshold that fires, the default and the limits of the threshold."""

    unit: Unit
    fires: Side
    threshold: float
    least: float
    most: float
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """A rule as it is in force. `muted_until` in unix seconds."""

    name: str
    enabled: bool
    threshold: float
    repeat_hours: float
    muted_until: float | None = None


RULES: dict[str, Rule] = {
    # The last known credits of one usable platform account.
    "account_credits_low": Rule("credits", "below", 20, 0, 1_000_000_000),
    # The sum of all usable platform accounts.
    "pool_credits_low": Rule("credits", "below", 200, 0, 1_000_000_000),
    # Minutes since a platform account asks for a login or is blocked.
    "session_expired": Rule("minutes", "above", 2, 0, 10_080),
    # Age of the oldest waiting job that an account could have taken a minute ago.
    "queue_stuck": Rule("minutes", "above", 10, 1, 10_080),
    # Minutes since the deadline of a job that is still open; it should have ended within one.
    "jobs_overdue": Rule("minutes", "above", 5, 2, 10_080),
    # Free share of the disk with the results, or any problem that workers met there.
    "storage_low": Rule("percent", "below", 10, 0, 99),
    # Minutes since a queue has had a worker.
    "workers_away": Rule("minutes", "above", 3, 1, 1440),
    # Share of the jobs of the last ten minutes that failed for a reason of account, upstream or platform.
    "failure_rate_high": Rule("percent", "above", 30, 1, 99),
    # Jobs of the last 24 hours that upstream may have charged without a result, or twice.
    "charges_in_doubt": Rule("jobs", "above", 1, 1, 1_000_000),
    # Hours since the last `dreamery backup`.
    "backup_old": Rule("hours", "above", 48, 1, 8760, enabled=False),
}
# Fewer jobs in ten minutes say nothing about a rate.
LEAST_ENDED = 10


def fires(name: str, value: float, threshold: float) -> bool:
    """Return whether the value fires the rule."""
    return value < threshold if RULES[name].fires == "below" else value >= threshold


def default_settings(name: str) -> RuleSettings:
    """Return a rule as the code has it."""
    rule = RULES[name]
    return RuleSettings(name, rule.enabled, rule.threshold, DEFAULT_REPEAT_HOURS)
