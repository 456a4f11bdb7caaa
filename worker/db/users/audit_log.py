"""The audit log: administrative actions with actor, target and address. Rows are never changed."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.ids import new_id
from worker.db.engine import Transaction


@dataclass(frozen=True, slots=True)
class Actor:
    """The actor of an action: name, user id, and network address of the request."""

    name: str
    user_id: UUID | None
    address: str


def record_action(tx: Transaction, actor: Actor, action: str, target: str, **details: Any) -> None:
    """Record an action, such as a sign-in, in the same transaction. `details` must not contain secrets.

    `action` is the kind of object and the verb (`key.revoke`), `target` the public id of the object.
    """
    tx.run(
        text(
            """INSERT INTO audit_log (id, actor, actor_id, address, action, target, details)
               VALUES (:id, :actor, :actor_id, :address, :action, :target, CAST(:details AS jsonb))"""
        ),
        {
            "id": new_id(),
            "actor": actor.name,
            "actor_id": actor.user_id,
            "address": actor.address,
            "action": action,
            "target": target,
            "details": json.dumps(details, default=str),
        },
    )


def read_forward(
    tx: Transaction,
    *,
    action: str | None,
    since: datetime | None,
    until: datetime,
    after: UUID | None,
    limit: int,
) -> list[Row[Any]]:
    """Return the next actions after `after`, oldest first; `action` filters as in `read_log`."""
    return tx.all(
        text(
            """SELECT id, at, actor, actor_id, address, action, target, details FROM audit_log
               WHERE (CAST(:action AS text) IS NULL OR action = :action OR action LIKE :action || '.%')
                 AND (CAST(:since AS timestamptz) IS NULL OR at >= :since) AND at < :until
                 AND (CAST(:after AS uuid) IS NULL OR id > :after)
               ORDER BY id LIMIT :limit"""
        ),
        {"action": action, "since": since, "until": until, "after": after, "limit": limit},
    )


def read_log(
    tx: Transaction, *, action: str | None, since: datetime | None, after: UUID | None, limit: int
) -> list[Row[Any]]:
    """Return actions, newest first. `action` filters by full name (`key.revoke`) or first word (`key`)."""
    return tx.all(
        text(
            """SELECT id, at, actor, actor_id, address, action, target, details FROM audit_log
               WHERE (CAST(:action AS text) IS NULL OR action = :action OR action LIKE :action || '.%')
                 AND (CAST(:since AS timestamptz) IS NULL OR at >= :since)
                 AND (CAST(:after AS uuid) IS NULL OR id < :after)
               ORDER BY id DESC LIMIT :limit"""
        ),
        {"action": action, "since": since, "after": after, "limit": limit},
    )
