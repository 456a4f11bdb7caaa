"""Deleted jobs: hidden from their owner at once; their bytes are deleted afterwards, with retries after a crash.

The rows stay, because charges, account usage and quotas are counted from them.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.db.engine import Transaction


def delete_job(tx: Transaction, job_id: UUID) -> Row[Any] | None:
    """Hide a finished job from its owner; None if it has not finished or is already deleted.

    Returns `id`, `state` and `event_seq`.
    """
    return tx.first(
        text(
            """UPDATE jobs SET deleted_at = clock_timestamp()
               WHERE id = :id AND finished_at IS NOT NULL AND deleted_at IS NULL RETURNING id, state, event_seq"""
        ),
        {"id": job_id},
    )


def deleted_files(tx: Transaction, *, limit: int, job_id: UUID | None = None) -> list[Row[Any]]:
    """Return `id` and `key` of files of deleted jobs (one job, or all) whose bytes still exist."""
    return tx.all(
        text(
            """SELECT f.id, f.key FROM jobs j JOIN files f ON f.job_id = j.id
               WHERE j.deleted_at IS NOT NULL AND f.removed_at IS NULL
                 AND (CAST(:job_id AS uuid) IS NULL OR j.id = :job_id) LIMIT :limit"""
        ),
        {"limit": limit, "job_id": job_id},
    )


def hide_job(tx: Transaction, job_id: UUID) -> Row[Any] | None:
    """Hide a job from its owner in any state; a running job continues, but hidden.

    Returns `id`, `state` and `event_seq`.
    """
    return tx.first(
        text(
            """UPDATE jobs SET deleted_at = coalesce(deleted_at, clock_timestamp())
               WHERE id = :id RETURNING id, state, event_seq"""
        ),
        {"id": job_id},
    )
