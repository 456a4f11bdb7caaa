"""Queries of a caller's jobs as a feed (who may see a change, what changed since a moment) and as numbered pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text

from worker.core.job_state import OPEN, sql_list
from worker.db.engine import Transaction
from worker.db.jobs.job_search import JobFilter, filter_conditions
from worker.db.jobs.queries import JobView, Viewer, group_views, visibility_condition

# The order of a job is read only if its model has more than one service tier: orders are large.
_FLEX = "(model = ANY(CAST(:flex_models AS text[])) AND params -> 'order' -> 'options' ->> 'service_tier' = 'flex')"
_EXPIRED = "coalesce(error_code, '') = ANY(CAST(:expired_codes AS text[]))"


# The number of a job's newest event, and when its owner last marked or deleted something of it.
Version = tuple[int, datetime | None]


@dataclass(frozen=True, slots=True)
class ChangedJobs:
    """Jobs that are open, or that ended, were marked or deleted since a moment."""

    versions: dict[UUID, Version]
    deleted: list[UUID]
    has_more: bool  # more jobs than the limit
    now: float  # the clock of the database, epoch seconds


def find_viewers(tx: Transaction, job_ids: list[UUID]) -> list[Row[Any]]:
    """Return `id`, `user_id` and `account_ids` of jobs, which decide who may see them or may have seen them."""
    return tx.all(text("SELECT id, user_id, account_ids FROM jobs WHERE id = ANY(:ids)"), {"ids": job_ids})


def find_deleted(tx: Transaction, viewer: Viewer, job_ids: Sequence[UUID]) -> list[UUID]:
    """Return those of the jobs that the viewer could see until they were deleted."""
    condition, values = visibility_condition(viewer, deleted=True)
    statement = f"SELECT id FROM jobs WHERE id = ANY(:ids) AND {condition} ORDER BY id"
    return [row.id for row in tx.all(text(statement), {**values, "ids": list(job_ids)})]


_VISIBLE_BY = "id, event_seq, edited_at, user_id, api_key_id, account_ids, deleted_at"
_CHANGED = f"""SELECT {_VISIBLE_BY} FROM jobs WHERE finished_at >= to_timestamp(CAST(:since AS double precision))
               UNION SELECT {_VISIBLE_BY} FROM jobs WHERE edited_at >= to_timestamp(CAST(:since AS double precision))"""
_DELETED = f"SELECT {_VISIBLE_BY} FROM jobs WHERE deleted_at >= to_timestamp(CAST(:since AS double precision))"


def find_changed_jobs(tx: Transaction, viewer: Viewer, *, since: float | None, limit: int) -> ChangedJobs:
    """Return the viewer's open jobs and those that changed otherwise since then (epoch seconds; None = open ones only),
    newest first.
    """
    condition, values = visibility_condition(viewer)
    if viewer.user_id is not None:
        # The index of open jobs is by owner, so that it also serves session ids.
        owned, values = f"{condition} AND owner = :owner", {**values, "owner": f"user:{viewer.user_id}"}
    else:
        owned = condition
    # Separate reads, because no index finds "open or changed lately" among all jobs of a caller.
    rows = tx.all(
        text(
            f"""SELECT id, event_seq, edited_at FROM jobs WHERE {owned} AND state IN {sql_list(OPEN)}
                ORDER BY id DESC LIMIT :limit"""
        ),
        {**values, "limit": limit + 1},
    )
    deleted: list[UUID] = []
    if since is not None:
        since_values = {**values, "since": since, "limit": limit + 1}
        rows += tx.all(_changed_since(_CHANGED, condition), since_values)
        hidden, _ = visibility_condition(viewer, deleted=True)
        deleted = [row.id for row in tx.all(_changed_since(_DELETED, hidden), since_values)]
    # A job that finished between the reads is in both.
    rows = sorted({row.id: row for row in rows}.values(), key=lambda row: row.id, reverse=True)[: limit + 1]
    clock = tx.first(text("SELECT extract(epoch FROM clock_timestamp()) AS now"))
    return ChangedJobs(
        versions={row.id: (row.event_seq, row.edited_at) for row in rows[:limit]},
        deleted=deleted[:limit],
        has_more=len(rows) > limit or len(deleted) > limit,
        now=float(clock.now) if clock else 0.0,
    )


def _changed_since(jobs: str, condition: str) -> TextClause:
    return text(
        f"""WITH changed AS MATERIALIZED ({jobs})
            SELECT id, event_seq, edited_at FROM changed WHERE {condition} ORDER BY id DESC LIMIT :limit"""
    )


def numbered_page(
    tx: Transaction,
    viewer: Viewer,
    filters: JobFilter,
    *,
    offset: int,
    limit: int,
    flex: bool,
    flex_models: Sequence[str],
    expired_codes: tuple[str, ...] = (),
    expired: bool | None = None,
) -> tuple[list[JobView], int]:
    """Return a page of jobs, newest first, and how many there are.

    `flex` = only those of the cheaper service tier, which `flex_models` have, or only the others.
    `expired` = only jobs that failed with one of `expired_codes`, or only others; None = all.
    """
    visible, values = visibility_condition(viewer)
    conditions, filter_values = filter_conditions(tx, filters)
    conditions = [visible, *conditions, _FLEX if flex else f"NOT coalesce({_FLEX}, false)"]
    if expired is not None:
        conditions.append(_EXPIRED if expired else f"NOT ({_EXPIRED})")
        values = {**values, "expired_codes": list(expired_codes)}
    values = {**values, **filter_values, "flex_models": list(flex_models)}
    where = " AND ".join(conditions)
    total = tx.first(text(f"/* count_page */ SELECT count(*) AS n FROM jobs WHERE {where}"), values)
    rows = tx.all(
        text(f"/* numbered_page */ SELECT id FROM jobs WHERE {where} ORDER BY id DESC LIMIT :limit OFFSET :offset"),
        {**values, "limit": limit, "offset": offset},
    )
    ids: list[UUID] = [row.id for row in rows]
    views = group_views(tx, ids) if ids else []
    return list(reversed(views)), int(total.n) if total is not None else 0
