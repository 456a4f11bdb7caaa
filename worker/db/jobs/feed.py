"""Queries of the feed of all jobs of a caller: who may see a changed job, and what changed since a moment."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.job_state import OPEN, sql_list
from worker.db.engine import Transaction
from worker.db.jobs.queries import Viewer, visibility_condition


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
