"""Queries of a caller's jobs as a feed (who may see a change, what changed since a moment) and as numbered pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.job_state import OPEN, sql_list
from worker.db.engine import Transaction
from worker.db.jobs.job_search import JobFilter, filter_conditions
from worker.db.jobs.queries import JobView, Viewer, group_views, visibility_condition

# The order of a job is read only if its model has more than one service tier: orders are large.
_FLEX = "(model = ANY(CAST(:flex_models AS text[])) AND params -> 'order' -> 'options' ->> 'service_tier' = 'flex')"
_EXPIRED = "coalesce(error_code, '') = ANY(CAST(:expired_codes AS text[]))"


@dataclass(frozen=True, slots=True)
class ChangedJobs:
    """Jobs that are open or that finished since a moment."""

    event_seqs: dict[UUID, int]  # job id -> number of its newest event
    has_more: bool  # more jobs than the limit
    now: float  # the clock of the database, epoch seconds


def find_viewers(tx: Transaction, job_ids: list[UUID]) -> list[Row[Any]]:
    """Return `id`, `user_id` and `account_ids` of jobs, which decide who may see them."""
    return tx.all(
        text("SELECT id, user_id, account_ids FROM jobs WHERE id = ANY(:ids) AND deleted_at IS NULL"), {"ids": job_ids}
    )


def find_changed_jobs(tx: Transaction, viewer: Viewer, *, since: float | None, limit: int) -> ChangedJobs:
    """Return the viewer's open jobs and those that finished since then (epoch seconds; None = open ones only), newest
    first.
    """
    condition, values = visibility_condition(viewer)
    if viewer.user_id is not None:
        # The index of open jobs is by owner, so that it also serves session ids.
        owned, values = f"{condition} AND owner = :owner", {**values, "owner": f"user:{viewer.user_id}"}
    else:
        owned = condition
    # Two reads, because no index finds "open or finished lately" among all jobs of a caller.
    rows = tx.all(
        text(
            f"""SELECT id, event_seq FROM jobs WHERE {owned} AND state IN {sql_list(OPEN)}
                ORDER BY id DESC LIMIT :limit"""
        ),
        {**values, "limit": limit + 1},
    )
    if since is not None:
        rows += tx.all(
            text(
                f"""WITH ended AS MATERIALIZED (
                        SELECT id, event_seq, user_id, api_key_id, account_ids, deleted_at FROM jobs
                        WHERE finished_at >= to_timestamp(CAST(:since AS double precision)))
                    SELECT id, event_seq FROM ended WHERE {condition} ORDER BY id DESC LIMIT :limit"""
            ),
            {**values, "since": since, "limit": limit + 1},
        )
    # A job that finished between the reads is in both.
    rows = sorted({row.id: row for row in rows}.values(), key=lambda row: row.id, reverse=True)[: limit + 1]
    clock = tx.first(text("SELECT extract(epoch FROM clock_timestamp()) AS now"))
    seqs = {row.id: row.event_seq for row in rows[:limit]}
    return ChangedJobs(event_seqs=seqs, has_more=len(rows) > limit, now=float(clock.now) if clock else 0.0)


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
