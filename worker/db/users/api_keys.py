"""API keys: create, find, rotate, revoke. Only a SHA-256 hash is stored; 256 random bits need no slow hash."""

import hashlib
import json
import secrets
from collections.abc import Mapping
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
# Possible scopes of a key. A key without scopes has all rights of its user's role.
SCOPES = ("generate", "read", "admin")
_PREFIX_CHARS = len(KEY_PREFIX) + 4
_COLUMNS = """k.id, k.user_id, u.name AS user_name, k.name, k.prefix, k.scopes, k.models, k.providers, k.accounts,
              k.account_groups,
              k.expires_at, k.last_used_at, k.created_at, k.revoked_at, k.limits, k.soft_limits,
              coalesce(k.root_id, k.id) AS root_id"""
# SQL: the key `k` is valid now.
VALID = """(k.revoked_at IS NULL OR k.revoked_at > now()) AND (k.expires_at IS NULL OR k.expires_at > now())"""


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """The user of an API key and the rights of the key. `scopes` and `models` None = not restricted."""

    user_id: UUID
    api_key_id: UUID
    name: str
    role: str
    scopes: frozenset[str] | None = None
    models: frozenset[str] | None = None
    providers: frozenset[str] | None = None  # whose accounts its jobs may use
    accounts: frozenset[UUID] | None = None  # that its jobs may use, beside those of `account_groups`
    account_groups: frozenset[str] | None = None
    root_id: UUID | None = None  # first key of the rotation chain: rotated keys count as one
    user_limits: OwnLimits = field(default_factory=OwnLimits)
    key_limits: OwnLimits = field(default_factory=OwnLimits)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to create, with its rights."""

    user_id: UUID
    name: str
    scopes: list[str] | None = None
    models: list[str] | None = None
    providers: list[str] | None = None
    accounts: list[UUID] | None = None
    account_groups: list[str] | None = None
    expires_at: datetime | None = None
    root_id: UUID | None = None
    limits: OwnLimits = field(default_factory=OwnLimits)


def key_hash(key: str) -> str:
    """Return the hash under which a key is stored and found."""
    return hashlib.sha256(key.encode()).hexdigest()


def find_key(tx: Transaction, key: str) -> KeyOwner | None:
    """Return the owner of a valid key; None if it is unknown, revoked, expired or its user is disabled.

    Records the use of the key, at most once a minute.
    """
    return find_keys(tx, [key]).get(key)


_FIND = text(
    f"""/* find_keys */
    SELECT k.key_hash, k.id AS api_key_id, u.id AS user_id, u.name, u.role, k.scopes, k.models, k.providers,
        k.accounts, k.account_groups, coalesce(k.root_id, k.id) AS root_id, u.limits, u.soft_limits,
        k.limits AS key_limits, k.soft_limits AS key_soft_limits,
        k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute' AS stale
    FROM api_keys k JOIN users u ON u.id = k.user_id
    WHERE k.key_hash = ANY(:hashes) AND NOT u.disabled AND {VALID}"""
)
# Skips rows that another request holds: no request waits for a timestamp.
_RECORD_USE = text(
    """UPDATE api_keys SET last_used_at = now() WHERE id IN (
           SELECT id FROM api_keys WHERE id = ANY(:ids) FOR NO KEY UPDATE SKIP LOCKED)"""
)


def find_keys(tx: Transaction, keys: list[str]) -> dict[str, KeyOwner]:
    """Return the owners of the valid ones of these keys, by key, as `find_key` does for one."""
    by_hash = {key_hash(key): key for key in keys}
    rows = tx.all(_FIND, {"hashes": list(by_hash)})
    if stale := [row.api_key_id for row in rows if row.stale]:
        tx.run(_RECORD_USE, {"ids": stale})
    return {by_hash[row.key_hash]: key_owner(row) for row in rows}


def find_owner(tx: Transaction, key_id: UUID) -> KeyOwner | None:
    """Return the owner of a valid key by its id; None as for `find_key`."""
    row = tx.first(
        text(
            f"""SELECT k.id AS api_key_id, u.id AS user_id, u.name, u.role, k.scopes, k.models, k.providers, k.accounts,
                    k.account_groups, coalesce(k.root_id, k.id) AS root_id, u.limits, u.soft_limits,
                    k.limits AS key_limits, k.soft_limits AS key_soft_limits
                FROM api_keys k JOIN users u ON u.id = k.user_id WHERE k.id = :id AND NOT u.disabled AND {VALID}"""
        ),
        {"id": key_id},
    )
    return key_owner(row) if row is not None else None


def key_owner(row: Row[Any]) -> KeyOwner:
    """Build the owner from a row of `find_key` or of a console session."""
    return KeyOwner(
        user_id=row.user_id,
        api_key_id=row.api_key_id,
        name=row.name,
        role=row.role,
        scopes=frozenset(row.scopes) if row.scopes is not None else None,
        models=frozenset(row.models) if row.models is not None else None,
        providers=frozenset(row.providers) if row.providers is not None else None,
        accounts=frozenset(row.accounts) if row.accounts is not None else None,
        account_groups=frozenset(row.account_groups) if row.account_groups is not None else None,
        root_id=row.root_id,
        user_limits=OwnLimits(hard=row.limits, soft=row.soft_limits),
        key_limits=OwnLimits(hard=row.key_limits, soft=row.key_soft_limits),
    )


def ensure_bootstrap_key(tx: Transaction, user_id: UUID, key: str) -> None:
    """Store the key of DREAMERY_ADMIN_KEY and revoke older bootstrap keys."""
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
            "prefix": key[:_PREFIX_CHARS],
            "hash": key_hash(key),
        },
    )


def create_key(tx: Transaction, new: NewKey) -> tuple[UUID, str]:
    """Create a key. Return its id and the key itself, which cannot be read again."""
    key_id, key = new_id(), KEY_PREFIX + secrets.token_urlsafe(32)
    tx.run(
        text(
            """INSERT INTO api_keys (id, user_id, name, prefix, key_hash, scopes, models, providers, accounts,
                                     account_groups, expires_at, root_id, limits, soft_limits)
               VALUES (:id, :user_id, :name, :prefix, :hash, :scopes, :models, :providers, :accounts,
                       :account_groups, :expires_at, :root_id, CAST(:limits AS jsonb), CAST(:soft_limits AS jsonb))"""
        ),
        {
            "id": key_id,
            "user_id": new.user_id,
            "name": new.name,
            "prefix": key[:_PREFIX_CHARS],
            "hash": key_hash(key),
            "scopes": new.scopes,
            "models": new.models,
            "providers": new.providers,
            "accounts": new.accounts,
            "account_groups": new.account_groups,
            "expires_at": new.expires_at,
            "root_id": new.root_id,
            "limits": json.dumps(dict(new.limits.hard)),
            "soft_limits": json.dumps(dict(new.limits.soft)),
        },
    )
    return key_id, key


def list_keys(tx: Transaction, *, user_id: UUID | None, after: UUID | None, limit: int) -> list[Row[Any]]:
    """Return the keys of one user or of all, oldest first, without the keys themselves."""
    return tx.all(
        text(
            f"""SELECT {_COLUMNS} FROM api_keys k JOIN users u ON u.id = k.user_id
                WHERE k.purpose = 'api' AND (CAST(:user_id AS uuid) IS NULL OR k.user_id = :user_id)
                  AND (CAST(:after AS uuid) IS NULL OR k.id > :after)
                ORDER BY k.id LIMIT :limit"""
        ),
        {"user_id": user_id, "after": after, "limit": limit},
    )


def get_key(tx: Transaction, key_id: UUID) -> Row[Any] | None:
    """Return one key, or None."""
    return tx.first(
        text(
            f"SELECT {_COLUMNS} FROM api_keys k JOIN users u ON u.id = k.user_id WHERE k.id = :id AND k.purpose = 'api'"
        ),
        {"id": key_id},
    )


def rename_key(tx: Transaction, key_id: UUID, name: str) -> None:
    """Rename a key."""
    tx.run(text("UPDATE api_keys SET name = :name WHERE id = :id"), {"id": key_id, "name": name})


def set_selection(tx: Transaction, key_id: UUID, selection: Mapping[str, Any]) -> None:
    """Set whose accounts the jobs of a key may use: `providers`, `accounts`, `account_groups`; None = all."""
    names = [name for name in ("providers", "accounts", "account_groups") if name in selection]
    if names:
        sets = ", ".join(f"{name} = :{name}" for name in names)
        tx.run(text(f"UPDATE api_keys SET {sets} WHERE id = :id"), {"id": key_id, **selection})


def revoke_key(tx: Transaction, key_id: UUID, *, grace_seconds: float = 0.0) -> bool:
    """Revoke a key now or after the grace period. A revoked key stays revoked. False = no such key."""
    row = tx.first(
        text(
            """UPDATE api_keys SET revoked_at = least(revoked_at, now() + make_interval(secs => :grace))
               WHERE id = :id RETURNING id"""
        ),
        {"id": key_id, "grace": grace_seconds},
    )
    return row is not None


def rotate_key(tx: Transaction, key_id: UUID, *, grace_seconds: float) -> tuple[UUID, str] | None:
    """Create a new key with the same rights, limits and quota usage; the old key works until the grace period ends.

    None = no such key, or it is revoked.
    """
    row = tx.first(text(f"SELECT k.* FROM api_keys k WHERE k.id = :id AND {VALID} FOR NO KEY UPDATE"), {"id": key_id})
    if row is None or row.revoked_at is not None:
        return None
    created = create_key(
        tx,
        NewKey(
            user_id=row.user_id,
            name=row.name,
            scopes=row.scopes,
            models=row.models,
            providers=row.providers,
            accounts=row.accounts,
            account_groups=row.account_groups,
            expires_at=row.expires_at,
            root_id=row.root_id or row.id,
            limits=OwnLimits(hard=row.limits, soft=row.soft_limits),
        ),
    )
    revoke_key(tx, key_id, grace_seconds=grace_seconds)
    return created
