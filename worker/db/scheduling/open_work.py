"""Whether anything is left to do. The scheduler of a single machine rests while nothing is."""

from sqlalchemy import text

from worker.core.job_state import OPEN, sql_list
from worker.db.engine import Transaction


def has_open_work(tx: Transaction) -> bool:
    """Return whether any job is unfinished or any webhook delivery is scheduled."""
    row = tx.first(
        text(
            f"""SELECT EXISTS (SELECT FROM jobs WHERE state IN {sql_list(OPEN)})
                OR EXISTS (SELECT FROM jobs WHERE state = 'held')
                OR EXISTS (SELECT FROM webhook_deliveries WHERE due_at IS NOT NULL) AS open"""
        )
    )
    return row is not None and bool(row.open)
