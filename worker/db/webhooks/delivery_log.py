"""The delivery log of an owner: deliveries with their attempts, test events, replays."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.webhook_policy import TEST_EVENT
from worker.db.engine import Transaction

_STATUS = """CASE WHEN d.delivered_at IS NOT NULL THEN 'delivered' WHEN d.given_up_at IS NOT NULL THEN 'failed'
    WHEN d.claimed_until > clock_timestamp() THEN 'sending' ELSE 'pending' END"""
_COLUMNS = f"""d.id, d.job_id, d.batch_id, d.endpoint_id, d.event, d.url, d.attempts, d.due_at, d.delivered_at,
    d.given_up_at, d.last_status, d.last_error, d.created_at, {_STATUS} AS status"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery and its attempts, oldest first."""

    row: Row[Any]
    attempts: list[Row[Any]]


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Filters of a list of deliveries; None = all."""

    endpoint_id: UUID | None = None
    job_id: UUID | None = None
    event: str | None = None
    status: str | None = None


def _with_attempts(tx: Transaction, rows: list[Row[Any]]) -> list[Delivery]:
    by_delivery: dict[UUID, list[Row[Any]]] = {}
    found = tx.all(
        text("SELECT * FROM webhook_attempts WHERE delivery_id = ANY(:ids) ORDER BY delivery_id, n"),
        {"ids": [row.id for row in rows]},
    )
    for item in found:
        by_delivery.setdefault(item.delivery_id, []).append(item)
    return [Delivery(row=row, attempts=by_delivery.get(row.id, [])) for row in rows]


def list_deliveries(
    tx: Transaction, owner: str, filters: DeliveryFilter, *, after: UUID | None, limit: int, newest_first: bool
) -> tuple[list[Delivery], bool] | None:
    """Return one page of an owner's deliveries and whether more follow; None if `after` does not exist."""
    compare, order = ("<", "DESC") if newest_first else (">", "ASC")
    cursor = None
    if after is not None:
        cursor = tx.first(
            text("SELECT created_at FROM webhook_deliveries WHERE id = :id AND owner = :owner"),
            {"id": after, "owner": owner},
        )
        if cursor is None:
            return None
    rows = tx.all(
        text(
            f"""/* list_deliveries */ SELECT {_COLUMNS} FROM webhook_deliveries d
                WHERE d.owner = :owner
                  AND (CAST(:endpoint_id AS uuid) IS NULL OR d.endpoint_id = :endpoint_id)
                  AND (CAST(:job_id AS uuid) IS NULL OR d.job_id = :job_id)
                  AND (CAST(:event AS text) IS NULL OR d.event = :event)
                  AND (CAST(:status AS text) IS NULL OR {_STATUS} = :status)
                  AND (CAST(:after AS uuid) IS NULL OR (d.created_at, d.id) {compare} (:moment, CAST(:after AS uuid)))
                ORDER BY d.created_at {order}, d.id {order} LIMIT :limit"""
        ),
        {
            "owner": owner,
            "endpoint_id": filters.endpoint_id,
            "job_id": filters.job_id,
            "event": filters.event,
            "status": filters.status,
            "after": after,
            "moment": cursor.created_at if cursor is not None else None,
            "limit": limit + 1,
        },
    )
    return _with_attempts(tx, rows[:limit]), len(rows) > limit


def get_delivery(tx: Transaction, delivery_id: UUID, owner: str) -> Delivery | None:
    """Return one delivery; None if it does not exist or has another owner (I9)."""
    rows = tx.all(
        text(f"SELECT {_COLUMNS} FROM webhook_deliveries d WHERE d.id = :id AND d.owner = :owner"),
        {"id": delivery_id, "owner": owner},
    )
    return _with_attempts(tx, rows)[0] if rows else None


def add_test(tx: Transaction, *, delivery_id: UUID, endpoint_id: UUID, owner: str, url: str) -> UUID:
    """Insert a test event, due now, and return its id; or return the id of a pending one."""
    waiting = tx.first(
        text(
            """SELECT id FROM webhook_deliveries
               WHERE endpoint_id = :endpoint_id AND event = :event AND due_at IS NOT NULL LIMIT 1"""
        ),
        {"endpoint_id": endpoint_id, "event": TEST_EVENT},
    )
    if waiting is not None:
        waiting_id: UUID = waiting.id
        return waiting_id
    tx.run(
        text(
            """INSERT INTO webhook_deliveries (id, endpoint_id, event, url, owner, lane, due_at)
               VALUES (:id, :endpoint_id, :event, :url, :owner, :lane, now())"""
        ),
        {
            "id": delivery_id,
            "endpoint_id": endpoint_id,
            "event": TEST_EVENT,
            "url": url,
            "owner": owner,
            "lane": f"endpoint:{endpoint_id}",
        },
    )
    return delivery_id


def replay(tx: Transaction, delivery_id: UUID) -> bool:
    """Start a new series of attempts now, under the same id; False if an attempt is in progress."""
    row = tx.first(
        text(
            """UPDATE webhook_deliveries SET tries = 0, due_at = now(), claimed_until = NULL, delivered_at = NULL,
                   given_up_at = NULL
               WHERE id = :id AND coalesce(claimed_until <= clock_timestamp(), true) RETURNING id"""
        ),
        {"id": delivery_id},
    )
    return row is not None
