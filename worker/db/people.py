"""Users and API keys. A key is stored as a hash; it has 256 random bits, so a plain SHA-256 is enough."""

import hashlib
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from worker.core.ids import new_id
from worker.db.engine import Transaction

ADMIN_NAME = "admin"
KEY_PREFIX = "sk-dreamery-"
_SHOWN_CHARS = len(KEY_PREFIX) + 4


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """Who an API key stands for."""

    user_id: UUID
    api_key_id: UUID
    name: str
    role: str


def key_hash(key: str) -> str:
    """How a key is stored and found."""
    return hashlib.sha256(key.encode()).hexdigest()


def find_key(tx: Transaction, key: str) -> KeyOwner | None:
    """The owner of a valid key; None when it is unknown, revoked or its user is disabled."""
    row = tx.first(
        text(
            """SELECT k.id AS api_key_id, u.id AS user_id, u.name, u.role
               FROM api_keys k JOIN users u ON u.id = k.user_id
               WHERE k.key_hash = :hash AND k.revoked_at IS NULL AND NOT u.disabled"""
        ),
        {"hash": key_hash(key)},
    )
    return KeyOwner(user_id=row.user_id, api_key_id=row.api_key_id, name=row.name, role=row.role) if row else None


def ensure_admin(tx: Transaction, key: str) -> None:
    """Make the bootstrap admin and its key from DREAMERY_ADMIN_KEY; an older bootstrap key is revoked."""
    tx.run(
        text("INSERT INTO users (id, name, role) VALUES (:id, :name, 'admin') ON CONFLICT (name) DO NOTHING"),
        {"id": new_id(), "name": ADMIN_NAME},
    )
    tx.run(
        text(
            """UPDATE api_keys SET revoked_at = now() WHERE name = 'bootstrap' AND revoked_at IS NULL
               AND key_hash <> :hash"""
        ),
        {"hash": key_hash(key)},
    )
    tx.run(
        text(
            """INSERT INTO api_keys (id, user_id, name, prefix, key_hash)
               SELECT :id, id, 'bootstrap', :prefix, :hash FROM users WHERE name = :name
               ON CONFLICT (key_hash) DO UPDATE SET revoked_at = NULL"""
        ),
        {"id": new_id(), "name": ADMIN_NAME, "prefix": key[:_SHOWN_CHARS], "hash": key_hash(key)},
    )
