"""How long results, timelines and pins are kept: rules in SQL. The bytes go in `worker/tasks/stages/expire_results.py`.

Rows of jobs stay whatever expires: they are what was charged, and what usage and limits are counted from.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from worker.core.ids import first_id_at
from worker.db.engine import Transaction

# Files are older than the end of their job, so the index on their age finds the candidates. The job is locked and
# looked at once more: a pin that comes meanwhile is either seen here, or sees that its files are removed.
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

# Ids of jobs are in the order of time, and lead the key of this table.
_PRUNE_EVENTS = text(
    """/* prune_events */
    WITH old AS MATERIALIZED (
        SELECT e.job_id, e.seq FROM job_events e JOIN jobs j ON j.id = e.job_id
        WHERE e.job_id < :before AND j.finished_at IS NOT NULL ORDER BY e.job_id, e.seq LIMIT :limit)
    DELETE FROM job_events e USING old WHERE e.job_id = old.job_id AND e.seq = old.seq RETURNING e.seq"""
)


def expire_files(tx: Transaction, *, days: int, limit: int) -> int:
    """Mark files past their user's retention (else `days`; 0 = for ever) as removed; how many. Pinned jobs are kept."""
    return len(tx.all(_EXPIRE, {"days": days, "limit": limit}))


def prune_events(tx: Transaction, *, days: int, limit: int) -> int:
    """Remove timeline rows of ended jobs that were accepted more than `days` ago; how many."""
    before = first_id_at(datetime.now(UTC) - timedelta(days=days))
    return len(tx.all(_PRUNE_EVENTS, {"before": before, "limit": limit}))


def set_user_retention(tx: Transaction, user_id: UUID, days: int | None) -> None:
    """How long a user's results are kept; None = the platform's setting, 0 = for ever."""
    tx.run(text("UPDATE users SET retention_days = :days WHERE id = :id"), {"id": user_id, "days": days})


def pin(tx: Transaction, job_id: UUID) -> bool:
    """Keep the job's files for ever; False when they were removed already (then roll back)."""
    tx.run(text("UPDATE jobs SET pinned_at = coalesce(pinned_at, now()) WHERE id = :id"), {"id": job_id})
    gone = text("SELECT 1 FROM files WHERE job_id = :id AND removed_at IS NOT NULL LIMIT 1")
    return tx.first(gone, {"id": job_id}) is None


def unpin(tx: Transaction, job_id: UUID) -> None:
    """The retention holds for the job again."""
    tx.run(text("UPDATE jobs SET pinned_at = NULL WHERE id = :id"), {"id": job_id})


def pins_of(tx: Transaction, owner: str, *, but: UUID) -> int:
    """How many other jobs an owner has pinned."""
    row = tx.first(
        text(
            """SELECT count(*) AS n FROM jobs
               WHERE owner = :owner AND pinned_at IS NOT NULL AND deleted_at IS NULL AND id <> :but"""
        ),
        {"owner": owner, "but": but},
    )
    return int(row.n) if row is not None else 0


def unfinished_among(tx: Transaction, job_ids: list[UUID]) -> set[UUID]:
    """Those of the ids that are jobs which have not ended: their results may be stored before they have rows."""
    rows = tx.all(text("SELECT id FROM jobs WHERE id = ANY(:ids) AND finished_at IS NULL"), {"ids": job_ids})
    return {row.id for row in rows}
