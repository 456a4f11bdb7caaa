"""How users sign in without a key: passwords, one-time invitations, and identities of an OpenID provider.

Their console sessions belong to a key of the purpose `console`, which each user has at most one of. Nobody knows that
key, so it cannot be sent; limits, rights and the end of a session work as for every other key.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.ids import new_id
from worker.db.engine import Transaction
from worker.db.users.api_keys import KeyOwner, key_hash, key_owner


@dataclass(frozen=True, slots=True)
class PasswordOwner:
    """A user who may sign in with a password. `password_hash` None = has none."""

    id: UUID
    name: str
    password_hash: str | None


def find_password(tx: Transaction, *, name: str = "", user_id: UUID | None = None) -> PasswordOwner | None:
    """Return the user of this name or id; None if there is none or it is disabled."""
    row = tx.first(
        text(
            """SELECT id, name, password_hash FROM users
               WHERE (name = :name OR id = CAST(:id AS uuid)) AND NOT disabled"""
        ),
        {"name": name, "id": user_id},
    )
    return PasswordOwner(row.id, row.name, row.password_hash) if row is not None else None


def set_password(tx: Transaction, user_id: UUID, password_hash: str | None) -> None:
    """Set the hash of a user's password, or remove it."""
    tx.run(text("UPDATE users SET password_hash = :hash WHERE id = :id"), {"id": user_id, "hash": password_hash})


_OWNER = text(
    """SELECT u.id AS user_id, k.id AS api_key_id, u.name, u.role, k.scopes, k.models, k.providers, k.accounts,
           k.account_groups, coalesce(k.root_id, k.id) AS root_id, u.limits, u.soft_limits,
           k.limits AS key_limits, k.soft_limits AS key_soft_limits
       FROM api_keys k JOIN users u ON u.id = k.user_id WHERE u.id = :user AND k.purpose = 'console'"""
)


def console_key(tx: Transaction, user_id: UUID) -> KeyOwner:
    """Return the user with the key that holds its sessions; create the key if there is none."""
    row = tx.first(_OWNER, {"user": user_id})
    if row is None:
        tx.run(
            text(
                """INSERT INTO api_keys (id, user_id, name, prefix, key_hash, purpose)
                   VALUES (:id, :user, 'console', '', :hash, 'console')
                   ON CONFLICT (user_id) WHERE purpose = 'console' DO NOTHING"""
            ),
            {"id": new_id(), "user": user_id, "hash": key_hash(secrets.token_urlsafe(32))},
        )
        row = tx.first(_OWNER, {"user": user_id})
    if row is None:
        raise LookupError("the user has been removed")
    return key_owner(row)


# --- invitations ---


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def invite(tx: Transaction, user_id: UUID, *, created_by: str, hours: float) -> tuple[UUID, str]:
    """Create an invitation; return its id and its secret, which cannot be read again. Earlier ones end."""
    withdraw_invitations(tx, user_id)
    token, invitation_id = secrets.token_urlsafe(24), new_id()
    tx.run(
        text(
            """INSERT INTO invitations (id, user_id, token_hash, created_by, expires_at)
               VALUES (:id, :user, :hash, :by, now() + make_interval(secs => :seconds))"""
        ),
        {"id": invitation_id, "user": user_id, "hash": _hash(token), "by": created_by, "seconds": hours * 3600},
    )
    return invitation_id, token


def withdraw_invitations(tx: Transaction, user_id: UUID) -> int:
    """Delete the unused invitations of a user; return how many."""
    result = tx.run(text("DELETE FROM invitations WHERE user_id = :user AND used_at IS NULL"), {"user": user_id})
    return int(result.rowcount)


def find_invitation(tx: Transaction, token: str) -> Row[Any] | None:
    """Return `user_id`, `name`, `expires_at` and `state` (open, used, expired, disabled) of an invitation, or None."""
    return tx.first(
        text(
            """SELECT i.user_id, u.name, i.expires_at, CASE WHEN i.used_at IS NOT NULL THEN 'used'
                   WHEN i.expires_at <= now() THEN 'expired' WHEN u.disabled THEN 'disabled' ELSE 'open' END AS state
               FROM invitations i JOIN users u ON u.id = i.user_id WHERE i.token_hash = :hash"""
        ),
        {"hash": _hash(token)},
    )


def use_invitation(tx: Transaction, token: str) -> bool:
    """Mark an open invitation as used. False if it is not open: of two uses at the same time one succeeds."""
    row = tx.first(
        text(
            """UPDATE invitations SET used_at = now()
               WHERE token_hash = :hash AND used_at IS NULL AND expires_at > now() RETURNING id"""
        ),
        {"hash": _hash(token)},
    )
    return row is not None


# --- OpenID providers ---


def find_identity(tx: Transaction, issuer: str, subject: str) -> Row[Any] | None:
    """Return `id`, `name`, `role` and `disabled` of the user with this identity, or None."""
    return tx.first(
        text(
            """SELECT u.id, u.name, u.role, u.disabled FROM identities i JOIN users u ON u.id = i.user_id
               WHERE i.issuer = :issuer AND i.subject = :subject"""
        ),
        {"issuer": issuer, "subject": subject},
    )


def add_identity(tx: Transaction, issuer: str, subject: str, user_id: UUID) -> None:
    """Link a user of the provider with a user of the platform."""
    tx.run(
        text(
            """INSERT INTO identities (issuer, subject, user_id) VALUES (:issuer, :subject, :user)
               ON CONFLICT (issuer, subject) DO NOTHING"""
        ),
        {"issuer": issuer, "subject": subject, "user": user_id},
    )


def sign_in_methods(tx: Transaction, user_id: UUID) -> Row[Any] | None:
    """Return `has_password`, `invitation_expires_at` and `issuers` of a user, or None."""
    return tx.first(
        text(
            """SELECT u.name, u.password_hash IS NOT NULL AS has_password,
                   (SELECT max(i.expires_at) FROM invitations i
                    WHERE i.user_id = u.id AND i.used_at IS NULL AND i.expires_at > now()) AS invitation_expires_at,
                   ARRAY(SELECT d.issuer FROM identities d WHERE d.user_id = u.id ORDER BY d.issuer) AS issuers
               FROM users u WHERE u.id = :id"""
        ),
        {"id": user_id},
    )
