"""API keys: made, found, rotated, revoked. Only a hash is stored; 256 random bits need no slow one (SHA-256)."""

import hashlib
import json
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.ids import new_id
from worker.core.quotas import OwnLimits
from worker.db.engine import Transaction

KEY_PREFIX = "sk-dreamery-"
BOOTSTRAP = "bootstrap"
# What a key may be narrowed to. Without scopes it may do what its user's role allows.
SCOPES = ("generate", "read", "admin")
_SHOWN_CHARS = len(KEY_PREFIX) + 4
_COLUMNS = """k.id, k.user_id, u.name AS user_name, k.name, k.prefix, k.scopes, k.models, k.expires_at, k.last_used_at,
              k.created_at, k.revoked_at, k.limits, k.soft_limits, coalesce(k.root_id, k.id) AS root_id"""
_VALID = """(k.revoked_at IS NULL OR k.revoked_at > now()) AND (k.expires_at IS NULL OR k.expires_at > now())"""


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """Who an API key stands for and what it may do. `scopes` and `models` None = no limit of the key's own."""

    user_id: UUID
    api_key_id: UUID
    name: str
    role: str
    scopes: frozenset[str] | None = None
    models: frozenset[str] | None = None
    root_id: UUID | None = None  # the first key of its line: what was rotated counts as one key
    user_limits: OwnLimits = field(default_factory=OwnLimits)
    key_limits: OwnLimits = field(default_factory=OwnLimits)


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a key to be is allowed."""

    user_id: UUID
    name: str
    scopes: list[str] | None = None
    models: list[str] | None = None
    expires_at: datetime | None = None
    root_id: UUID | None = None
    limits: OwnLimits = field(default_factory=OwnLimits)


def key_hash(key: str) -> str:
    """How a key is stored and found."""
    return hashlib.sha256(key.encode()).hexdigest()


def find_key(tx: Transaction, key: str) -> KeyOwner | None:
    """The owner of a valid key; None when it is unknown, revoked, expired or its user is disabled.

    Notes its use, at most once a minute.
    """
    row = tx.first(
        text(
            f"""SELECT k.id AS api_key_id, u.id AS user_id, u.name, u.role, k.scopes, k.models,
                    coalesce(k.root_id, k.id) AS root_id, u.limits, u.soft_limits,
                    k.limits AS key_limits, k.soft_limits AS key_soft_limits,
                    k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute' AS stale
                FROM api_keys k JOIN users u ON u.id = k.user_id
                WHERE k.key_hash = :hash AND NOT u.disabled AND {_VALID}"""
        ),
        {"hash": key_hash(key)},
    )
    if row is None:
        return None
    if row.stale:
        # Skipped when somebody else notes it: no request waits for a timestamp.
        tx.run(
            text(
                """UPDATE api_keys SET last_used_at = now() WHERE id IN (
                       SELECT id FROM api_keys WHERE id = :id FOR NO KEY UPDATE SKIP LOCKED)"""
            ),
            {"id": row.api_key_id},
        )
    return key_owner(row)


def key_owner(row: Row[Any]) -> KeyOwner:
    """Whoever presents a key, as `find_key` reads it; a console session is the same, by way of its key."""
    return KeyOwner(
        user_id=row.user_id,
        api_key_id=row.api_key_id,
        name=row.name,
        role=row.role,
        scopes=frozenset(row.scopes) if row.scopes is not None else None,
        models=frozenset(row.models) if row.models is not None else None,
        root_id=row.root_id,
        user_limits=OwnLimits(hard=row.limits, soft=row.soft_limits),
        key_limits=OwnLimits(hard=row.key_limits, soft=row.key_soft_limits),
    )


def ensure_bootstrap_key(tx: Transaction, user_id: UUID, key: str) -> None:
    """The key of DREAMERY_ADMIN_KEY; an older bootstrap key is revoked."""
    tx.run(
        text(
            """UPDATE api_keys SET revoked_at = now() WHERE name = :name AND revoked_at IS NULL
               AND key_hash <> :hash"""
        ),
        {"name": BOOTSTRAP, "hash": key_hash(key)},
    )
    tx.run(
        text(
            """INSERT INTO api_keys (id, user_id, name, prefix, key_hash)
               VALUES (:id, :user_id, :name, :prefix, :hash)
               ON CONFLICT (key_hash) DO UPDATE SET revoked_at = NULL"""
        ),
        {
            "id": new_id(),
            "user_id": user_id,
            "name": BOOTSTRAP,
            "prefix": key[:_SHOWN_CHARS],
            "hash": key_hash(key),
        },
    )


def create_key(tx: Transaction, wanted: NewKey) -> tuple[UUID, str]:
    """A new key: its id, and the key itself, which is told this once."""
    key_id, key = new_id(), KEY_PREFIX + secrets.token_urlsafe(32)
    tx.run(
        text(
            """INSERT INTO api_keys (id, user_id, name, prefix, key_hash, scopes, models, expires_at, root_id,
                                     limits, soft_limits)
               VALUES (:id, :user_id, :name, :prefix, :hash, :scopes, :models, :expires_at, :root_id,
                       CAST(:limits AS jsonb), CAST(:soft_limits AS jsonb))"""
        ),
        {
            "id": key_id,
            "user_id": wanted.user_id,
            "name": wanted.name,
            "prefix": key[:_SHOWN_CHARS],
            "hash": key_hash(key),
            "scopes": wanted.scopes,
            "models": wanted.models,
            "expires_at": wanted.expires_at,
            "root_id": wanted.root_id,
            "limits": json.dumps(dict(wanted.limits.hard)),
            "soft_limits": json.dumps(dict(wanted.limits.soft)),
        },
    )
    return key_id, key


def list_keys(tx: Transaction, *, user_id: UUID | None, after: UUID | None, limit: int) -> list[Row[Any]]:
    """Keys of one user or of all, oldest first; never the keys themselves."""
    return tx.all(
        text(
            f"""SELECT {_COLUMNS} FROM api_keys k JOIN users u ON u.id = k.user_id
                WHERE (CAST(:user_id AS uuid) IS NULL OR k.user_id = :user_id)
                  AND (CAST(:after AS uuid) IS NULL OR k.id > :after)
                ORDER BY k.id LIMIT :limit"""
        ),
        {"user_id": user_id, "after": after, "limit": limit},
    )


def get_key(tx: Transaction, key_id: UUID) -> Row[Any] | None:
    """One key."""
    return tx.first(
        text(f"SELECT {_COLUMNS} FROM api_keys k JOIN users u ON u.id = k.user_id WHERE k.id = :id"), {"id": key_id}
    )


def rename_key(tx: Transaction, key_id: UUID, name: str) -> None:
    """What the key is called."""
    tx.run(text("UPDATE api_keys SET name = :name WHERE id = :id"), {"id": key_id, "name": name})


def revoke_key(tx: Transaction, key_id: UUID, *, grace_seconds: float = 0.0) -> bool:
    """The key stops working now, or after the grace; one that is revoked already stays so. False = no such key."""
    row = tx.first(
        text(
            """UPDATE api_keys SET revoked_at = least(revoked_at, now() + make_interval(secs => :grace))
               WHERE id = :id RETURNING id"""
        ),
        {"id": key_id, "grace": grace_seconds},
    )
    return row is not None


def rotate_key(tx: Transaction, key_id: UUID, *, grace_seconds: float) -> tuple[UUID, str] | None:
    """A new key with the same rights and limits, whose budget goes on; the old one works on for the grace.

    None = no such key, or it is revoked.
    """
    row = tx.first(text(f"SELECT k.* FROM api_keys k WHERE k.id = :id AND {_VALID} FOR NO KEY UPDATE"), {"id": key_id})
    if row is None or row.revoked_at is not None:
        return None
    made = create_key(
        tx,
        NewKey(
            user_id=row.user_id,
            name=row.name,
            scopes=row.scopes,
            models=row.models,
            expires_at=row.expires_at,
            root_id=row.root_id or row.id,
            limits=OwnLimits(hard=row.limits, soft=row.soft_limits),
        ),
    )
    revoke_key(tx, key_id, grace_seconds=grace_seconds)
    return made
