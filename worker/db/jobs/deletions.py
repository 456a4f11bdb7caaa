"""Jobs that their owner deleted: seen no more at once, and their bytes removed afterwards, however often that dies.

The rows stay: they are what was charged for, and what accounts and limits are counted from.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.db.engine import Transaction


def delete_job(tx: Transaction, job_id: UUID) -> bool:
    """Take an ended job from its owner's sight; False when it has not ended or is deleted already."""
    row = tx.first(
        text(
            """UPDATE jobs SET deleted_at = clock_timestamp()
               WHERE id = :id AND finished_at IS NOT NULL AND deleted_at IS NULL RETURNING id"""
        ),
        {"id": job_id},
    )
    return row is not None


def deleted_files(tx: Transaction, *, limit: int, job_id: UUID | None = None) -> list[Row[Any]]:
    """Files of deleted jobs (of this one, or all) that still have bytes: `id` and `key`."""
    return tx.all(
        text(
            """SELECT f.id, f.key FROM jobs j JOIN files f ON f.job_id = j.id
               WHERE j.deleted_at IS NOT NULL AND f.removed_at IS NULL
                 AND (CAST(:job_id AS uuid) IS NULL OR j.id = :job_id) LIMIT :limit"""
        ),
        {"limit": limit, "job_id": job_id},
    )


def hide_job(tx: Transaction, job_id: UUID) -> None:
    """Take a job from its owner's sight, ended or not; what still runs of it runs to its end unseen."""
    tx.run(text("UPDATE jobs SET deleted_at = coalesce(deleted_at, now()) WHERE id = :id"), {"id": job_id})
