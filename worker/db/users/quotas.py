"""Budgets, counted: what a caller has used of its limits. From the job rows themselves, so nothing can drift.

A job counts in the day and month in which it was accepted, whatever became of it, deleted or not; jobs that a
conversation started count too. Whoever admits new jobs holds `lock_owner` from before the count until the commit: the
next count then sees them, so a limit is exact however many requests come at once.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.job_state import OPEN, UNSUCCESSFUL, sql_list
from worker.core.quotas import OPEN_JOBS, PERIODIC, Limit, OwnLimits, Value
from worker.core.settings import get_settings
from worker.db.engine import Transaction

# What a job costs its owner: what it did cost, else what it was expected to. One that ended before its first submit
# surely cost nothing.
CREDITS = f"CASE WHEN attempt = 0 AND state IN {sql_list(UNSUCCESSFUL)} THEN 0 ELSE coalesce(charged, price, 0) END"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose budget: an owner, and with a key also the line of keys it belongs to (its first key's id)."""

    owner: str
    user_id: UUID | None = None
    key_root: UUID | None = None


@dataclass(frozen=True, slots=True)
class QuotaUsage:
    """How much of a limit is used, and when it begins anew; `resets_at` None = whenever an open job ends."""

    limit: Limit
    used: int
    period: datetime
    resets_at: datetime | None

    @property
    def remaining(self) -> int | None:
        """What is left; None = only a soft limit."""
        return None if self.limit.hard is None else max(self.limit.hard - self.used, 0)


def lock_owner(tx: Transaction, owner: str) -> None:
    """Until the commit nobody else admits jobs of this owner."""
    tx.run(text("SELECT pg_advisory_xact_lock(hashtextextended(:scope, 0))"), {"scope": f"budget {owner}"})


# `now()` on both sides: a transaction's own jobs fall into the day it counts, also when it waits over midnight.
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
        SELECT j.created_at >= b.day AS today, j.api_key_id = ANY(f.ids) AS by_key, {CREDITS} AS credits
        FROM b, f, jobs j
        WHERE j.owner = :owner AND j.created_at < b.next_month
          AND j.created_at >= CASE WHEN :monthly THEN b.month ELSE b.day END)
    SELECT b.*,
        count(credits) FILTER (WHERE today) AS user_jobs_per_day,
        count(credits) AS user_jobs_per_month,
        coalesce(sum(credits) FILTER (WHERE today), 0) AS user_credits_per_day,
        coalesce(sum(credits), 0) AS user_credits_per_month,
        count(credits) FILTER (WHERE today AND by_key) AS key_jobs_per_day,
        count(credits) FILTER (WHERE by_key) AS key_jobs_per_month,
        coalesce(sum(credits) FILTER (WHERE today AND by_key), 0) AS key_credits_per_day,
        coalesce(sum(credits) FILTER (WHERE by_key), 0) AS key_credits_per_month
    FROM b LEFT JOIN counted ON true GROUP BY b.day, b.month, b.next_day, b.next_month"""
)
_OPEN = text(
    f"""/* budget_open */
    SELECT count(*) AS user_open_jobs, count(*) FILTER (WHERE api_key_id IN (
        SELECT id FROM api_keys WHERE id = CAST(:key_root AS uuid) OR root_id = CAST(:key_root AS uuid)))
        AS key_open_jobs
    FROM jobs WHERE owner = :owner AND state IN {sql_list(OPEN)}"""
)


def get_usage(tx: Transaction, subject: Subject, limits: list[Limit]) -> list[QuotaUsage]:
    """What is used of these limits now, in their order. Requests per minute are not counted here and left out."""
    counted = [limit for limit in limits if limit.name == OPEN_JOBS or limit.name in PERIODIC]
    if not counted:
        return []
    values: dict[str, Any] = {"owner": subject.owner, "key_root": subject.key_root}
    asked = {**values, "zone": get_settings().budget_time_zone}
    asked["monthly"] = any(limit.name.endswith("_month") for limit in counted)
    sums = tx.all(_USED, asked)[0]._mapping  # noqa: SLF001 - SQLAlchemy's public name
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


def expected_credits(tx: Transaction, job_ids: list[UUID]) -> tuple[int, bool]:
    """What new jobs are expected to cost together, as far as known, and whether that is known of all of them."""
    row = tx.all(
        text(
            """SELECT coalesce(sum(price), 0) AS credits, count(price) = count(*) AS known
               FROM jobs WHERE id = ANY(:ids)"""
        ),
        {"ids": job_ids},
    )[0]
    return int(row.credits), bool(row.known)


def record_warning(tx: Transaction, subject: Subject, reached: QuotaUsage) -> bool:
    """Whether this is the first time in its period that the soft value of this limit is reached by a user or key."""
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
    """Set limits of a user or key by name; None takes one away, so that the platform's default applies again."""
    tx.run(
        text(
            f"""UPDATE {table} SET limits = jsonb_strip_nulls(limits || CAST(:hard AS jsonb)),
                    soft_limits = jsonb_strip_nulls(soft_limits || CAST(:soft AS jsonb)) WHERE id = :id"""
        ),
        {"id": row_id, "hard": json.dumps(dict(hard)), "soft": json.dumps(dict(soft))},
    )


def own_limits(row: "Row[Any]") -> OwnLimits:
    """The limits that a row of a user or key carries."""
    return OwnLimits(hard=row.limits, soft=row.soft_limits)
