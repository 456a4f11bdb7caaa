"""Usage reports: accepted jobs and their outcomes, by day, user, key, model, kind and account. Read-only.

Counted from the job rows, which remain after the owner deletes a job and after retention deletes its files. A job
counts on the day it was accepted. `ix_jobs_usage_money` covers all counted columns, so the wide rows are not read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.catalog.money import CURRENCIES, PER_UNIT
from worker.core.job_state import FINAL, sql_list
from worker.core.settings import get_settings
from worker.db.engine import Transaction
from worker.db.users.quotas import COST
from worker.db.users.result_counts import all_are_counted

# Group columns. A rotated key counts together with its first key.
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
# Money by currency, as decimal amounts.
MONEY = tuple(map(str.lower, CURRENCIES))
METRICS = ("accepted", "succeeded", "failed", "cancelled", "open", "pictures", "video_seconds", "credits", *MONEY)


@dataclass(frozen=True, slots=True)
class DateRange:
    """First and last day, inclusive, in the time zone of budgets."""

    first: date
    last: date


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Filters of a usage report; None = all."""

    owner: str | None = None
    key_root: UUID | None = None
    account_id: UUID | None = None
    models: list[str] | None = None


def today(tx: Transaction) -> date:
    """Return the current day in the time zone of budgets."""
    row = tx.all(
        text("SELECT CAST(now() AT TIME ZONE :zone AS date) AS day"), {"zone": get_settings().budget_time_zone}
    )
    day: date = row[0].day
    return day


def report(
    tx: Transaction, span: DateRange, filters: UsageFilter, groups: Sequence[str], *, limit: int
) -> list[Row[Any]]:
    """Return one row per group with jobs, in group order: one column per group, then `METRICS`.

    Returns up to `limit` + 1 rows; the extra row shows that there are more.
    """
    values = {
        "first": span.first,
        "last": span.last,
        "zone": get_settings().budget_time_zone,
        "limit": limit + 1,
        "owner": filters.owner,
        "key_root": filters.key_root,
        "account_id": filters.account_id,
        "models": filters.models,
    }
    # A generic plan does not know whether the report is about a small or the largest user, a day or a year.
    tx.run(text("SET LOCAL plan_cache_mode = force_custom_plan"))
    return tx.all(text(_statement(filters, groups, counted=all_are_counted(tx))), values)


# Jobs whose results are not counted yet, shortly after an upgrade: reads all files.
_FILES = """LEFT JOIN (SELECT f.job_id, count(*) AS n, sum(f.seconds) AS seconds FROM files f
            WHERE f.variant = 'original' GROUP BY f.job_id) m ON m.job_id = j.id AND j.result_count IS NULL"""


def _statement(filters: UsageFilter, groups: Sequence[str], *, counted: bool = True) -> str:
    """Build the statement without unused conditions, so each report gets its own query plan.

    `counted` = all jobs have the counts of their results.
    """
    conditions = [
        "j.created_at >= CAST(:first AS timestamp) AT TIME ZONE :zone",
        "j.created_at < (CAST(:last AS timestamp) + interval '1 day') AT TIME ZONE :zone",
        *(["j.owner = :owner"] if filters.owner is not None else []),
        *(["j.account_id = :account_id"] if filters.account_id is not None else []),
        *(["j.model = ANY(CAST(:models AS text[]))"] if filters.models is not None else []),
        *(["coalesce(k.root_id, k.id) = :key_root"] if filters.key_root is not None else []),
    ]
    keys = "LEFT JOIN api_keys k ON k.id = j.api_key_id" if "key" in groups or filters.key_root is not None else ""
    named = "".join(f"{_GROUPS[group]} AS {group}_, " for group in groups)
    numbers = ", ".join(str(number) for number in range(1, len(groups) + 1))
    order = f"GROUP BY {numbers} ORDER BY {numbers}" if groups else ""
    succeeded = "j.state = 'succeeded' AND j.kind"
    count, seconds, files = "j.result_count", "j.result_seconds", ""
    if not counted:
        count, seconds, files = "coalesce(j.result_count, m.n)", "coalesce(j.result_seconds, m.seconds)", _FILES
    money = ", ".join(
        f"coalesce(sum({COST}) FILTER (WHERE j.currency = '{one}'), 0) / {PER_UNIT}.0 AS {one.lower()}"
        for one in CURRENCIES
    )
    return f"""/* usage */
        SELECT {named}
            count(*) AS accepted,
            count(*) FILTER (WHERE j.state = 'succeeded') AS succeeded,
            count(*) FILTER (WHERE j.state = 'failed') AS failed,
            count(*) FILTER (WHERE j.state = 'cancelled') AS cancelled,
            count(*) FILTER (WHERE j.state NOT IN {sql_list(FINAL)}) AS open,
            coalesce(sum({count}) FILTER (WHERE {succeeded} = 'image'), 0) AS pictures,
            coalesce(sum({seconds}) FILTER (WHERE {succeeded} = 'video'), 0) AS video_seconds,
            coalesce(sum({COST}) FILTER (WHERE j.currency IS NULL), 0) AS credits, {money}
        FROM jobs j {keys} {files} WHERE {" AND ".join(conditions)} {order} LIMIT :limit"""


# The table and the name of each kind of object.
_NAMES = {
    "user": ("users", "name"),
    "key": ("api_keys", "name"),
    "account": ("accounts", "label"),
    "album": ("albums", "name"),
    "job": ("jobs", "left(params -> 'order' ->> 'prompt', 80)"),
}


def get_names(tx: Transaction, kind: str, ids: list[UUID]) -> dict[UUID, str]:
    """Return the names of users, keys, accounts, albums or jobs (the beginning of the prompt), by id."""
    table, name = _NAMES[kind]
    rows = tx.all(text(f"SELECT id, {name} AS name FROM {table} WHERE id = ANY(:ids)"), {"ids": ids})
    return {row.id: row.name for row in rows if row.name}


def get_key_users(tx: Transaction, ids: list[UUID]) -> dict[UUID, UUID]:
    """Return the users of keys, by the id of the key."""
    rows = tx.all(text("SELECT id, user_id FROM api_keys WHERE id = ANY(:ids)"), {"ids": ids})
    return {row.id: row.user_id for row in rows}
