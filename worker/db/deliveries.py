"""The webhook outbox. Rows are written by `jobs.py` with the final state; this file claims them and notes outcomes."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.settings import get_settings
from worker.db.engine import Transaction

# Standard Webhooks' suggested schedule, in seconds after each failed try.
RETRY_AFTER = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)


def due_deliveries(tx: Transaction, *, limit: int) -> list[UUID]:
    """Deliveries whose time has come."""
    rows = tx.all(
        text("SELECT id FROM webhook_deliveries WHERE due_at <= clock_timestamp() ORDER BY due_at LIMIT :limit"),
        {"limit": limit},
    )
    return [row.id for row in rows]


def claim_delivery(tx: Transaction, delivery_id: UUID) -> Row[Any] | None:
    """Take one delivery for a lease; None when it is not due or somebody has it."""
    return tx.first(
        text(
            """UPDATE webhook_deliveries SET tries = tries + 1,
                   due_at = clock_timestamp() + make_interval(secs => :lease)
               WHERE id = :id AND due_at <= clock_timestamp()
               RETURNING id, job_id, event, url, owner, tries, created_at"""
        ),
        {"id": delivery_id, "lease": get_settings().lease_seconds},
    )


def note_delivered(tx: Transaction, delivery_id: UUID, *, status: int) -> None:
    """The receiver took it."""
    tx.run(
        text(
            """UPDATE webhook_deliveries SET due_at = NULL, delivered_at = clock_timestamp(), last_status = :status,
                   last_error = NULL
               WHERE id = :id"""
        ),
        {"id": delivery_id, "status": status},
    )


def note_failed(tx: Transaction, delivery_id: UUID, *, tries: int, status: int | None, error: str) -> bool:
    """The receiver did not take it: try later, or give up after the last try. True when it will be tried again."""
    # 410 Gone is the receiver's word that it never wants this again.
    again = tries <= len(RETRY_AFTER) and status != 410
    tx.run(
        text(
            """UPDATE webhook_deliveries SET last_status = :status, last_error = :error,
                   due_at = CASE WHEN :again THEN clock_timestamp() + make_interval(secs => :delay) END,
                   given_up_at = CASE WHEN :again THEN NULL ELSE clock_timestamp() END
               WHERE id = :id AND delivered_at IS NULL"""
        ),
        {
            "id": delivery_id,
            "status": status,
            "error": error[:500],
            "again": again,
            "delay": RETRY_AFTER[min(tries, len(RETRY_AFTER)) - 1],
        },
    )
    return again
