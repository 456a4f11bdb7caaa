"""Favourite marks of jobs."""

from uuid import UUID

from sqlalchemy import text

from worker.db.engine import Transaction


def mark_favourite(tx: Transaction, job_id: UUID, *, favourite: bool) -> None:
    """Set or clear the mark. The caller has checked that the user may see the job."""
    tx.run(text("UPDATE jobs SET favourite = :favourite WHERE id = :id"), {"id": job_id, "favourite": favourite})
