"""What a feed of all jobs of a caller asks for: whose a changed job is, and what changed while nobody listened."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.job_state import OPEN, sql_list
from worker.db.engine import Transaction
from worker.db.jobs.queries import Viewer, visible


@dataclass(frozen=True, slots=True)
class News:
    """Jobs that are open, or that ended since a moment: ids with their newest event numbers; and the time it is now."""

    seqs: dict[UUID, int]
    more: bool  # there were more than asked for
    now: float  # the database's clock, epoch seconds


def whose(tx: Transaction, job_ids: list[UUID]) -> list[Row[Any]]:
    """`id`, `user_id` and `account_ids` of jobs: who may see them."""
    return tx.all(
        text("SELECT id, user_id, account_ids FROM jobs WHERE id = ANY(:ids) AND deleted_at IS NULL"), {"ids": job_ids}
    )


def news(tx: Transaction, viewer: Viewer, *, since: float | None, limit: int) -> News:
    """The viewer's open jobs, newest first, and those that ended since (epoch seconds; None = only open ones)."""
    condition, values = visible(viewer)
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
    return News(seqs=seqs, more=len(rows) > limit, now=float(clock.now) if clock else 0.0)
