"""Users. `api_keys.py` has their API keys, `audit_log.py` the audit log."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.ids import new_id
from worker.db.engine import Transaction

ADMIN_NAME = "admin"
ROLES = ("admin", "member", "viewer")

_COLUMNS = "id, name, role, disabled, groups, weight, priority, retention_days, limits, soft_limits, created_at"


def ensure_admin(tx: Transaction) -> UUID:
    """Return the id of the bootstrap administrator; insert the user if it does not exist."""
    row = tx.first(
        text(
            """INSERT INTO users (id, name, role) VALUES (:id, :name, 'admin')
               ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id"""
        ),
        {"id": new_id(), "name": ADMIN_NAME},
    )
    if row is None:
        raise LookupError("admin neither inserted nor found")
    user_id: UUID = row.id
    return user_id


def add_user(
    tx: Transaction,
    *,
    name: str,
    role: str,
    groups: list[str] | None = None,
    weight: float = 1.0,
    priority: int = 0,
) -> Row[Any] | None:
    """Insert a user and return the row; None if the name is taken."""
    return tx.first(
        text(
            f"""INSERT INTO users (id, name, role, groups, weight, priority)
                VALUES (:id, :name, :role, CAST(:groups AS text[]), :weight, :priority)
                ON CONFLICT (name) DO NOTHING RETURNING {_COLUMNS}"""
        ),
        {"id": new_id(), "name": name, "role": role, "groups": groups or [], "weight": weight, "priority": priority},
    )


def list_users(tx: Transaction, *, after: UUID | None, limit: int) -> list[Row[Any]]:
    """Return users, oldest first."""
    return tx.all(
        text(
            f"""SELECT {_COLUMNS} FROM users WHERE (CAST(:after AS uuid) IS NULL OR id > :after)
                ORDER BY id LIMIT :limit"""
        ),
        {"after": after, "limit": limit},
    )


def find_user(tx: Transaction, *, user_id: UUID | None = None, name: str = "") -> Row[Any] | None:
    """Return one user, by id or name."""
    return tx.first(
        text(f"SELECT {_COLUMNS} FROM users WHERE id = CAST(:id AS uuid) OR name = :name"),
        {"id": user_id, "name": name},
    )


def change_user(
    tx: Transaction, user_id: UUID, *, role: str | None, disabled: bool | None, groups: list[str] | None = None
) -> Row[Any] | None:
    """Update the given values and return the new row; None if not found or the change affects the last admin."""
    # Lock all admins in one order: otherwise two of them could remove each other's role at the same time. This lock
    # mode still allows inserting jobs of the admins.
    tx.all(text("SELECT id FROM users WHERE role = 'admin' ORDER BY id FOR NO KEY UPDATE"))
    return tx.first(
        text(
            f"""UPDATE users SET role = coalesce(:role, role), disabled = coalesce(:disabled, disabled),
                    groups = coalesce(CAST(:groups AS text[]), groups)
                WHERE id = :id AND (
                    (coalesce(:role, role) = 'admin' AND NOT coalesce(:disabled, disabled))
                    OR role <> 'admin' OR disabled
                    OR EXISTS (SELECT 1 FROM users o WHERE o.id <> :id AND o.role = 'admin' AND NOT o.disabled))
                RETURNING {_COLUMNS}"""
        ),
        {"id": user_id, "role": role, "disabled": disabled, "groups": groups},
    )
