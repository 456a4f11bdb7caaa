"""Which jobs their owner marked as favourites."""

from uuid import UUID

from sqlalchemy import text

from worker.db.engine import Transaction


def mark_favourite(tx: Transaction, job_id: UUID, *, favourite: bool) -> None:
    """Set or take the mark of a job that the caller was found to see."""
    tx.run(text("UPDATE jobs SET favourite = :favourite WHERE id = :id"), {"id": job_id, "favourite": favourite})
