"""Retention of results and timelines, and pinned jobs. `worker/tasks/stages/expire_results.py` deletes the bytes.

Rows of jobs stay, because charges, usage and quotas are counted from them.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from worker.core.ids import first_id_at
from worker.db.engine import Transaction

# Files are older than the end of their job, so the index on their age finds the candidates. The job is locked and
# checked again: a concurrent pin is either seen here, or sees that the files are removed.
_EXPIRE = text(
    """/* expire_files */
    WITH due AS MATERIALIZED (
        SELECT f.job_id FROM files f JOIN jobs j ON j.id = f.job_id LEFT JOIN users u ON u.id = j.user_id
        WHERE f.removed_at IS NULL AND j.pinned_at IS NULL
          AND f.created_at < now() - make_interval(days => least(
                nullif(CAST(:days AS integer), 0), (SELECT min(retention_days) FROM users WHERE retention_days > 0)))
          AND j.finished_at < now() - make_interval(days => nullif(coalesce(u.retention_days, :days), 0))
        ORDER BY f.created_at LIMIT :limit),
    locked AS MATERIALIZED (
        SELECT id FROM jobs WHERE id IN (SELECT job_id FROM due) AND pinned_at IS NULL
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE files SET removed_at = clock_timestamp() FROM locked
    WHERE files.job_id = locked.id AND files.removed_at IS NULL RETURNING files.id"""
)

# Job ids are time-ordered and the first column of the primary key.
_PRUNE_EVENTS = text(
    """/* prune_events */
    WITH old AS MATERIALIZED (
        SELECT e.job_id, e.seq FROM job_events e JOIN jobs j ON j.id = e.job_id
        WHERE e.job_id < :before AND j.finished_at IS NOT NULL ORDER BY e.job_id, e.seq LIMIT :limit)
    DELETE FROM job_events e USING old WHERE e.job_id = old.job_id AND e.seq = old.seq RETURNING e.seq"""
)


def expire_files(tx: Transaction, *, days: int, limit: int) -> int:
    """Mark files past their user's retention as removed, except of pinned jobs; return how many.

    `days` = the retention of users without their own; 0 = keep permanently.
    """
    return len(tx.all(_EXPIRE, {"days": days, "limit": limit}))


def prune_events(tx: Transaction, *, days: int, limit: int) -> int:
    """Delete timeline rows of finished jobs that were accepted more than `days` ago; return how many."""
    before = first_id_at(datetime.now(UTC) - timedelta(days=days))
    return len(tx.all(_PRUNE_EVENTS, {"before": before, "limit": limit}))


def set_user_retention(tx: Transaction, user_id: UUID, days: int | None) -> None:
    """Set the retention of a user's results in days; None = the platform's setting, 0 = permanently."""
    tx.run(text("UPDATE users SET retention_days = :days WHERE id = :id"), {"id": user_id, "days": days})


def pin_job(tx: Transaction, job_id: UUID) -> bool:
    """Keep the files of the job permanently; False if they are already removed (the caller rolls back)."""
    tx.run(text("UPDATE jobs SET pinned_at = coalesce(pinned_at, now()) WHERE id = :id"), {"id": job_id})
    removed = text("SELECT 1 FROM files WHERE job_id = :id AND removed_at IS NOT NULL LIMIT 1")
    return tx.first(removed, {"id": job_id}) is None


def unpin_job(tx: Transaction, job_id: UUID) -> None:
    """Apply the retention to the job again."""
    tx.run(text("UPDATE jobs SET pinned_at = NULL WHERE id = :id"), {"id": job_id})


def count_pinned_jobs(tx: Transaction, owner: str, *, except_job: UUID) -> int:
    """Return how many other jobs an owner has pinned."""
    row = tx.first(
        text(
            """SELECT count(*) AS n FROM jobs
               WHERE owner = :owner AND pinned_at IS NOT NULL AND deleted_at IS NULL AND id <> :except_job"""
        ),
        {"owner": owner, "except_job": except_job},
    )
    return int(row.n) if row is not None else 0


def open_jobs_among(tx: Transaction, job_ids: list[UUID]) -> set[UUID]:
    """Return the ids of jobs that have not finished: their results may be stored before the file rows exist."""
    rows = tx.all(text("SELECT id FROM jobs WHERE id = ANY(:ids) AND finished_at IS NULL"), {"ids": job_ids})
    return {row.id for row in rows}
