"""Creating requests with an Idempotency-Key: which jobs a key stands for. The row is what two twins race for."""

from uuid import UUID

from sqlalchemy import text

from worker.db.engine import Row, Transaction


def remember_request(tx: Transaction, *, owner: str, key: str, group_id: UUID, fingerprint: str) -> bool:
    """Take the key for a new group of jobs; False when it is taken (its rows are then committed and readable)."""
    row = tx.first(
        text(
            """INSERT INTO idempotency_keys (owner, key, group_id, fingerprint)
               VALUES (:owner, :key, :group_id, :fingerprint) ON CONFLICT DO NOTHING RETURNING group_id"""
        ),
        {"owner": owner, "key": key, "group_id": group_id, "fingerprint": fingerprint},
    )
    return row is not None


def remembered_request(tx: Transaction, *, owner: str, key: str) -> "Row[tuple[UUID, str]] | None":
    """The earlier request with this key: `group_id` and `fingerprint`."""
    return tx.first(
        text("SELECT group_id, fingerprint FROM idempotency_keys WHERE owner = :owner AND key = :key"),
        {"owner": owner, "key": key},
    )


def forget_requests(tx: Transaction, *, hours: int) -> int:
    """Forget keys older than this; the number forgotten. Their jobs stay."""
    rows = tx.all(
        text(
            """DELETE FROM idempotency_keys WHERE created_at < now() - make_interval(hours => :hours)
               RETURNING group_id"""
        ),
        {"hours": hours},
    )
    return len(rows)
