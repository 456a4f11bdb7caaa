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
    rows = tx.all(
        text(
            f"""SELECT id, event_seq FROM jobs
                WHERE {condition} AND (state IN {sql_list(OPEN)}
                    OR finished_at >= to_timestamp(CAST(:since AS double precision)))
                ORDER BY id DESC LIMIT :limit"""
        ),
        {**values, "since": since, "limit": limit + 1},
    )
    clock = tx.first(text("SELECT extract(epoch FROM clock_timestamp()) AS now"))
    seqs = {row.id: row.event_seq for row in rows[:limit]}
    return ChangedJobs(event_seqs=seqs, has_more=len(rows) > limit, now=float(clock.now) if clock else 0.0)
