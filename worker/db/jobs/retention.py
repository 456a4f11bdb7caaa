"""Retention of results and timelines, and pinned jobs. `worker/tasks/stages/files/expire_results.py` deletes the bytes.

Rows of jobs stay, because charges, usage and quotas are counted from them.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import TextClause, text

from worker.core.ids import first_id_at
from worker.db.engine import Transaction

# Jobs that one statement looks at. Most have lost their files long ago or keep them, and an index tells that.
_WINDOW = 20_000

# The jobs of one user, in the order of their ids; of all other users, only those that still have files.
_JOBS_OF_USER = "SELECT id FROM jobs WHERE user_id = :user_id AND id > :after ORDER BY id LIMIT :window"
_JOBS_WITH_FILES = """SELECT DISTINCT job_id AS id FROM files WHERE removed_at IS NULL AND job_id > :after
            ORDER BY job_id LIMIT :window"""
_WITHOUT_OWN = "AND NOT EXISTS (SELECT 1 FROM users u WHERE u.id = j.user_id AND u.retention_days IS NOT NULL)"


# A job with pinned results may have others. `files.pinned` is NULL as long as all of its results are pinned, or none.
_SOME_NOT_PINNED = """(j.pinned_at IS NULL OR EXISTS (
                SELECT 1 FROM files f WHERE f.job_id = j.id AND f.removed_at IS NULL AND NOT f.pinned))"""


def _expire(jobs: str, condition: str) -> TextClause:
    """Return the statement for the next jobs.

    A job is locked and checked again: a concurrent pin is either seen here, or sees that the files are removed.
    """
    return text(
        f"""/* expire_files */
        WITH next AS MATERIALIZED ({jobs}),
        kept AS MATERIALIZED (SELECT id FROM next WHERE EXISTS (
            SELECT 1 FROM files f WHERE f.job_id = next.id AND f.removed_at IS NULL)),
        due AS MATERIALIZED (
            SELECT j.id FROM kept JOIN jobs j USING (id)
            WHERE {_SOME_NOT_PINNED} AND j.finished_at < now() - make_interval(days => :days) {condition}
            ORDER BY j.id LIMIT :limit),
        locked AS MATERIALIZED (
            SELECT id, pinned_at FROM jobs j WHERE id IN (SELECT id FROM due) AND {_SOME_NOT_PINNED}
            ORDER BY id FOR NO KEY UPDATE SKIP LOCKED),
        removed AS (
            UPDATE files SET removed_at = clock_timestamp() FROM locked
            WHERE files.job_id = locked.id AND files.removed_at IS NULL
                AND NOT coalesce(files.pinned, locked.pinned_at IS NOT NULL) RETURNING files.id)
        SELECT (SELECT count(*) FROM removed) AS removed, (SELECT count(*) FROM due) AS due,
            (SELECT id FROM due ORDER BY id DESC LIMIT 1) AS last_due, j.id AS last,
            j.created_at < now() - make_interval(days => :days) AS more
        FROM (SELECT id FROM next ORDER BY id DESC LIMIT 1) l JOIN jobs j USING (id)"""
    )


_EXPIRE_OF_USER = _expire(_JOBS_OF_USER, "")
_EXPIRE_OF_OTHERS = _expire(_JOBS_WITH_FILES, _WITHOUT_OWN)

# Job ids are time-ordered and the first column of the primary key.
_PRUNE_EVENTS = text(
    """/* prune_events */
    WITH old AS MATERIALIZED (
        SELECT e.job_id, e.seq FROM job_events e JOIN jobs j ON j.id = e.job_id
        WHERE e.job_id < :before AND j.finished_at IS NOT NULL ORDER BY e.job_id, e.seq LIMIT :limit)
    DELETE FROM job_events e USING old WHERE e.job_id = old.job_id AND e.seq = old.seq RETURNING e.seq"""
)


@dataclass(frozen=True, slots=True)
class Retention:
    """How many days results are kept: those of a user with an own retention, or (None) of all other users."""

    user_id: UUID | None
    days: int


def find_retentions(tx: Transaction, *, days: int) -> list[Retention]:
    """Return the retentions that delete anything. `days` = that of users without their own; 0 = keep permanently."""
    own = tx.all(text("SELECT id, retention_days FROM users WHERE retention_days > 0 ORDER BY id"))
    return [Retention(row.id, row.retention_days) for row in own] + ([Retention(None, days)] if days else [])


def expire_files(tx: Transaction, retention: Retention, *, after: UUID, limit: int) -> tuple[int, UUID | None]:
    """Mark the files of the next jobs past their retention as removed, except of pinned jobs.

    Looks at jobs with an id above `after`, and ends after `limit` jobs with such files. Returns how many files it
    removed, and the id to continue after; None = no older job follows.
    """
    statement = _EXPIRE_OF_OTHERS if retention.user_id is None else _EXPIRE_OF_USER
    values = {"user_id": retention.user_id, "days": retention.days, "after": after, "limit": limit, "window": _WINDOW}
    row = tx.first(statement, values)
    if row is None:
        return 0, None
    following = row.last_due if row.due == limit else row.last if row.more else None
    return int(row.removed), following


def prune_events(tx: Transaction, *, days: int, limit: int) -> int:
    """Delete timeline rows of finished jobs that were accepted more than `days` ago; return how many."""
    before = first_id_at(datetime.now(UTC) - timedelta(days=days))
    return len(tx.all(_PRUNE_EVENTS, {"before": before, "limit": limit}))


def set_user_retention(tx: Transaction, user_id: UUID, days: int | None) -> None:
    """Set the retention of a user's results in days; None = the platform's setting, 0 = permanently."""
    tx.run(text("UPDATE users SET retention_days = :days WHERE id = :id"), {"id": user_id, "days": days})


def pin_job(tx: Transaction, job_id: UUID) -> bool:
    """Keep the files of the job permanently; False if they are already removed (the caller rolls back)."""
    tx.run(
        text(
            """UPDATE jobs SET pinned_at = coalesce(pinned_at, now()), edited_at = clock_timestamp() WHERE id = :id"""
        ),
        {"id": job_id},
    )
    tx.run(text("UPDATE files SET pinned = NULL WHERE job_id = :id AND pinned IS NOT NULL"), {"id": job_id})
    removed = text("SELECT 1 FROM files WHERE job_id = :id AND removed_at IS NOT NULL AND deleted_at IS NULL LIMIT 1")
    return tx.first(removed, {"id": job_id}) is None


def unpin_job(tx: Transaction, job_id: UUID) -> None:
    """Apply the retention to the job again."""
    tx.run(text("UPDATE jobs SET pinned_at = NULL, edited_at = clock_timestamp() WHERE id = :id"), {"id": job_id})
    tx.run(text("UPDATE files SET pinned = NULL WHERE job_id = :id AND pinned IS NOT NULL"), {"id": job_id})


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
