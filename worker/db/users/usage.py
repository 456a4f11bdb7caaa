"""Usage reports: what was accepted and what came of it, by day, user, key, model, kind and account. Read-only.

Counted from the job rows, which stay when their owner deletes a job and when retention takes its files. A job belongs
to the day on which it was accepted. `ix_jobs_usage` holds all that is counted, so the wide rows are not visited.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.job_state import FINAL, sql_list
from worker.core.settings import get_settings
from worker.db.engine import Transaction
from worker.db.users.quotas import CREDITS

# What can be grouped by. A rotated key counts with the first of its line.
_GROUPS = {
    "day": "CAST(j.created_at AT TIME ZONE :zone AS date)",
    "user": "j.user_id",
    "key": "coalesce(k.root_id, k.id)",
    "kind": "j.kind",
    "model": "j.model",
    "account": "j.account_id",
}
OWN_GROUPS = ("day", "key", "kind", "model")
ALL_GROUPS = tuple(_GROUPS)
METRICS = ("accepted", "succeeded", "failed", "cancelled", "open", "pictures", "video_seconds", "credits")


@dataclass(frozen=True, slots=True)
class DateRange:
    """Days, both included, in the time zone of budgets."""

    first: date
    last: date


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Whose usage; None = everybody's."""

    owner: str | None = None
    key_root: UUID | None = None
    account_id: UUID | None = None
    model: str | None = None


def today(tx: Transaction) -> date:
    """The day that it is in the time zone of budgets."""
    row = tx.all(
        text("SELECT CAST(now() AT TIME ZONE :zone AS date) AS day"), {"zone": get_settings().budget_time_zone}
    )
    day: date = row[0].day
    return day


def report(
    tx: Transaction, span: DateRange, wanted: UsageFilter, groups: Sequence[str], *, limit: int
) -> list[Row[Any]]:
    """A row per group that had jobs, in the order of the groups: one column per group, then `METRICS`.

    `limit` = the most rows that are wanted; one more comes when there are more.
    """
    values = {
        "first": span.first,
        "last": span.last,
        "zone": get_settings().budget_time_zone,
        "limit": limit + 1,
        "owner": wanted.owner,
        "key_root": wanted.key_root,
        "account_id": wanted.account_id,
        "model": wanted.model,
    }
    return tx.all(text(_statement(wanted, groups)), values)


def _statement(wanted: UsageFilter, groups: Sequence[str]) -> str:
    """Conditions that do not apply are left out, so that each question gets the plan that fits it."""
    conditions = [
        "j.created_at >= CAST(:first AS timestamp) AT TIME ZONE :zone",
        "j.created_at < (CAST(:last AS timestamp) + interval '1 day') AT TIME ZONE :zone",
        *(["j.owner = :owner"] if wanted.owner is not None else []),
        *(["j.account_id = :account_id"] if wanted.account_id is not None else []),
        *(["j.model = :model"] if wanted.model is not None else []),
        *(["coalesce(k.root_id, k.id) = :key_root"] if wanted.key_root is not None else []),
    ]
    keys = "LEFT JOIN api_keys k ON k.id = j.api_key_id" if "key" in groups or wanted.key_root is not None else ""
    named = "".join(f"{_GROUPS[group]} AS {group}_, " for group in groups)
    columns = "".join(f"p.{group}_, " for group in groups)
    order = f"GROUP BY {columns[:-2]} ORDER BY {columns[:-2]}" if groups else ""
    return f"""/* usage */
        WITH p AS MATERIALIZED (
            SELECT {named} j.id, j.kind AS kind_of, j.state, {CREDITS} AS spent
            FROM jobs j {keys} WHERE {" AND ".join(conditions)}),
        made AS (
            SELECT f.job_id, count(*) AS n, sum(f.seconds) AS seconds
            FROM files f JOIN p ON p.id = f.job_id
            WHERE f.variant = 'original' AND p.state = 'succeeded' GROUP BY f.job_id)
        SELECT {columns}
            count(*) AS accepted,
            count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
            count(*) FILTER (WHERE state = 'failed') AS failed,
            count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
            count(*) FILTER (WHERE state NOT IN {sql_list(FINAL)}) AS open,
            coalesce(sum(m.n) FILTER (WHERE p.kind_of = 'image'), 0) AS pictures,
            coalesce(sum(m.seconds) FILTER (WHERE p.kind_of = 'video'), 0) AS video_seconds,
            coalesce(sum(spent), 0) AS credits
        FROM p LEFT JOIN made m ON m.job_id = p.id {order} LIMIT :limit"""


def get_names(tx: Transaction, kind: str, ids: list[UUID]) -> dict[UUID, str]:
    """What users, keys or accounts are called."""
    table, column = {"user": ("users", "name"), "key": ("api_keys", "name"), "account": ("accounts", "label")}[kind]
    rows = tx.all(text(f"SELECT id, {column} AS name FROM {table} WHERE id = ANY(:ids)"), {"ids": ids})
    return {row.id: row.name for row in rows}
