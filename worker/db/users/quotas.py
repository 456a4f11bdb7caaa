"""Quotas: how much of its limits a caller has used, counted from the job rows, so no counter can drift.

A job counts in the day and month it was accepted, with any outcome, even if deleted. Jobs started by a conversation
count too. A transaction that accepts jobs holds `lock_owner` from before the count until its commit, so limits are
exact under concurrent requests.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.catalog.money import CURRENCIES
from worker.core.job_state import OPEN, UNSUCCESSFUL, sql_list
from worker.core.quotas import OPEN_JOBS, PERIODIC, Limit, OwnLimits, Value
from worker.core.settings import get_settings
from worker.db.engine import Transaction

# The cost of a job for its owner: the charge, or else the price, in thousandths of `currency`, or credits without one.
# A job that ended before its first submit cost nothing.
COST = f"CASE WHEN attempt = 0 AND state IN {sql_list(UNSUCCESSFUL)} THEN 0 ELSE coalesce(charged, price, 0) END"


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject of a quota: an owner, and for a key the id of the first key of its rotation chain."""

    owner: str
    user_id: UUID | None = None
    key_root: UUID | None = None


@dataclass(frozen=True, slots=True)
class QuotaUsage:
    """Usage of a limit and its next reset; `resets_at` None = it decreases when an open job ends."""

    limit: Limit
    used: int
    period: datetime
    resets_at: datetime | None

    @property
    def remaining(self) -> int | None:
        """Remaining amount; None = soft limit only."""
        return None if self.limit.hard is None else max(self.limit.hard - self.used, 0)


def lock_owner(tx: Transaction, owner: str) -> None:
    """Block other transactions from accepting jobs of this owner until the commit."""
    tx.run(text("SELECT pg_advisory_xact_lock(hashtextextended(:scope, 0))"), {"scope": f"budget {owner}"})


_WHICH = {"credits": "currency IS NULL", **{one.lower(): f"currency = '{one}'" for one in CURRENCIES}}
_BY = {
    "user_{}_per_day": "today",
    "user_{}_per_month": "true",
    "key_{}_per_day": "today AND by_key",
    "key_{}_per_month": "by_key",
}
# The sum of each kind of cost, for the user and the key, today and this month.
_COSTS = ", ".join(
    f"coalesce(sum(cost) FILTER (WHERE {which} AND {by}), 0) AS {name.format(what)}"
    for what, which in _WHICH.items()
    for name, by in _BY.items()
)

# `now()` on both sides: a transaction's own jobs fall into the day it counts, even if it waits past midnight.
_USED = text(
    f"""/* budget_used */
    WITH p AS MATERIALIZED (
        SELECT d AS day, m AS month, d + interval '1 day' AS next_day, m + interval '1 month' AS next_month
        FROM (SELECT date_trunc('day', now() AT TIME ZONE :zone) AS d,
                     date_trunc('month', now() AT TIME ZONE :zone) AS m) local),
    b AS MATERIALIZED (
        SELECT day AT TIME ZONE :zone AS day, month AT TIME ZONE :zone AS month,
            next_day AT TIME ZONE :zone AS next_day, next_month AT TIME ZONE :zone AS next_month FROM p),
    f AS MATERIALIZED (
        SELECT coalesce(array_agg(id), '{{}}') AS ids FROM api_keys
        WHERE id = CAST(:key_root AS uuid) OR root_id = CAST(:key_root AS uuid)),
    counted AS (
        SELECT j.created_at >= b.day AS today, j.api_key_id = ANY(f.ids) AS by_key, currency, {COST} AS cost
        FROM b, f, jobs j
        WHERE j.owner = :owner AND j.created_at < b.next_month
          AND j.created_at >= CASE WHEN :monthly THEN b.month ELSE b.day END)
    SELECT b.*,
        count(cost) FILTER (WHERE today) AS user_jobs_per_day,
        count(cost) AS user_jobs_per_month,
        count(cost) FILTER (WHERE today AND by_key) AS key_jobs_per_day,
        count(cost) FILTER (WHERE by_key) AS key_jobs_per_month,
        {_COSTS}
    FROM b LEFT JOIN counted ON true GROUP BY b.day, b.month, b.next_day, b.next_month"""
)
_OPEN = text(
    f"""/* budget_open */
    SELECT count(*) AS user_open_jobs, count(*) FILTER (WHERE api_key_id IN (
        SELECT id FROM api_keys WHERE id = CAST(:key_root AS uuid) OR root_id = CAST(:key_root AS uuid)))
        AS key_open_jobs
    FROM jobs WHERE owner = :owner AND (state IN {sql_list(OPEN)} OR state = 'held')"""
)


def get_usage(tx: Transaction, subject: Subject, limits: list[Limit]) -> list[QuotaUsage]:
    """Return the current usage of these limits, in order. Requests per minute are counted elsewhere and left out."""
    counted = [limit for limit in limits if limit.name == OPEN_JOBS or limit.name in PERIODIC]
    if not counted:
        return []
    values: dict[str, Any] = {"owner": subject.owner, "key_root": subject.key_root}
    parameters = {**values, "zone": get_settings().budget_time_zone}
    parameters["monthly"] = any(limit.name.endswith("_month") for limit in counted)
    sums = tx.all(_USED, parameters)[0]._mapping  # noqa: SLF001 - SQLAlchemy's public name
    found = dict(sums)
    if any(limit.name == OPEN_JOBS for limit in counted):
        found |= tx.all(_OPEN, values)[0]._mapping  # noqa: SLF001
    return [_quota_usage(limit, found) for limit in counted]


def _quota_usage(limit: Limit, found: Mapping[str, Any]) -> QuotaUsage:
    amount = int(found[f"{limit.scope}_{limit.name}"])
    if limit.name == OPEN_JOBS:
        return QuotaUsage(limit=limit, used=amount, period=found["day"], resets_at=None)
    span = limit.name.rpartition("_")[2]
    return QuotaUsage(limit=limit, used=amount, period=found[span], resets_at=found[f"next_{span}"])


@dataclass(frozen=True, slots=True)
class Cost:
    """What new jobs cost in one currency (None = credits): the sum of the known prices, and whether all are known."""

    amount: int = 0
    known: bool = True


def expected_costs(tx: Transaction, job_ids: list[UUID]) -> dict[str | None, Cost]:
    """Return the cost of these jobs by currency. Kinds of cost that none of them has are absent."""
    rows = tx.all(
        text(
            """SELECT currency, coalesce(sum(price), 0) AS amount, count(price) = count(*) AS known
               FROM jobs WHERE id = ANY(:ids) GROUP BY currency"""
        ),
        {"ids": job_ids},
    )
    return {row.currency: Cost(int(row.amount), bool(row.known)) for row in rows}


def record_warning(tx: Transaction, subject: Subject, reached: QuotaUsage) -> bool:
    """Record that a soft limit was reached; True if this is the first time in its period for this user or key."""
    row = tx.first(
        text(
            """WITH old AS (
                   DELETE FROM budget_notices WHERE user_id = :user_id AND subject = :subject AND name = :name
                     AND period < CAST(:period AS timestamptz) - interval '60 days')
               INSERT INTO budget_notices (user_id, subject, name, period)
               VALUES (:user_id, :subject, :name, :period) ON CONFLICT DO NOTHING RETURNING at"""
        ),
        {
            "user_id": subject.user_id,
            "subject": "user" if reached.limit.scope == "user" else str(subject.key_root),
            "name": reached.limit.name,
            "period": reached.period,
        },
    )
    return row is not None


def set_limits(
    tx: Transaction,
    table: Literal["users", "api_keys"],
    row_id: UUID,
    *,
    hard: Mapping[str, Value | None],
    soft: Mapping[str, Value | None],
) -> None:
    """Set limits of a user or key by name; None removes one, so the platform's default applies again."""
    tx.run(
        text(
            f"""UPDATE {table} SET limits = jsonb_strip_nulls(limits || CAST(:hard AS jsonb)),
                    soft_limits = jsonb_strip_nulls(soft_limits || CAST(:soft AS jsonb)) WHERE id = :id"""
        ),
        {"id": row_id, "hard": json.dumps(dict(hard)), "soft": json.dumps(dict(soft))},
    )


def own_limits(row: "Row[Any]") -> OwnLimits:
    """Return the limits of a user or key row."""
    return OwnLimits(hard=row.limits, soft=row.soft_limits)
