"""Web console sessions: each belongs to an API key and is found by its cookie. Only hashes are stored."""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.db.engine import Transaction
from worker.db.users.api_keys import KeyOwner, key_owner

# Longest time of a session, even if it is in use, and of one whose cookie the browser keeps.
_MAX_DAYS = 30
PERSISTENT_DAYS = 180
# A session whose cookie the browser keeps ends after this time without use.
_PERSISTENT_IDLE_HOURS = 30 * 24
_LONGEST_TEXT = 100


@dataclass(frozen=True, slots=True)
class SessionStart:
    """How a session begins. `persistent`: the browser keeps its cookie. `device` and `address` help to recognise it."""

    method: str = "key"
    persistent: bool = False
    device: str = ""
    address: str = ""


def _hash(session_id: str) -> str:
    return hashlib.sha256(session_id.encode()).hexdigest()


def open_session(tx: Transaction, api_key_id: UUID, *, hours: float, start: SessionStart | None = None) -> str:
    """Create a session of this key and return its id, which cannot be read again. Expired sessions are deleted.

    It ends after `hours` without use, a persistent one after 30 days.
    """
    how = start or SessionStart()
    tx.run(
        text(
            """DELETE FROM console_sessions WHERE id_hash IN (
                   SELECT id_hash FROM console_sessions WHERE expires_at < now()
                   ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED)"""
        )
    )
    session_id = secrets.token_urlsafe(32)
    tx.run(
        text(
            """INSERT INTO console_sessions (id_hash, api_key_id, expires_at, method, persistent, device, address)
               VALUES (:hash, :key, now() + make_interval(secs => :seconds), :method, :persistent, :device, :address)"""
        ),
        {
            "hash": _hash(session_id),
            "key": api_key_id,
            "seconds": (_PERSISTENT_IDLE_HOURS if how.persistent else hours) * 3600,
            "method": how.method,
            "persistent": how.persistent,
            "device": how.device[:_LONGEST_TEXT],
            "address": how.address[:_LONGEST_TEXT],
        },
    )
    return session_id


def find_session(tx: Transaction, session_id: str, *, hours: float) -> KeyOwner | None:
    """Return the owner of a session; None if the session has expired, or its key or user is no longer valid.

    At most once a minute, extends the session by `hours` and records the use of the key.
    """
    row = tx.first(
        text(
            """SELECT k.id AS api_key_id, u.id AS user_id, u.name, u.role, k.scopes, k.models, k.providers, k.accounts,
                   k.account_groups, coalesce(k.root_id, k.id) AS root_id, u.limits, u.soft_limits,
                   k.limits AS key_limits, k.soft_limits AS key_soft_limits, s.persistent,
                   s.last_used_at < now() - interval '1 minute' AS stale
               FROM console_sessions s JOIN api_keys k ON k.id = s.api_key_id JOIN users u ON u.id = k.user_id
               WHERE s.id_hash = :hash AND s.expires_at > now() AND NOT u.disabled
                 AND (k.revoked_at IS NULL OR k.revoked_at > now())
                 AND (k.expires_at IS NULL OR k.expires_at > now())"""
        ),
        {"hash": _hash(session_id)},
    )
    if row is None:
        return None
    if row.stale:
        idle, most = (_PERSISTENT_IDLE_HOURS, PERSISTENT_DAYS) if row.persistent else (hours, _MAX_DAYS)
        _record_use(tx, session_id, row.api_key_id, idle_hours=idle, days=most)
    return key_owner(row)


def is_of_disabled_user(tx: Transaction, session_id: str) -> bool:
    """Return whether the session is refused because its user is disabled."""
    row = tx.first(
        text(
            """SELECT 1 FROM console_sessions s JOIN api_keys k ON k.id = s.api_key_id JOIN users u ON u.id = k.user_id
               WHERE s.id_hash = :hash AND s.expires_at > now() AND u.disabled"""
        ),
        {"hash": _hash(session_id)},
    )
    return row is not None


def open_sessions(tx: Transaction, session_ids: set[str]) -> set[str]:
    """Return those of the sessions that have not ended. Their keys and users are not checked."""
    by_hash = {_hash(session_id): session_id for session_id in session_ids}
    rows = tx.all(
        text("SELECT id_hash FROM console_sessions WHERE id_hash = ANY(:hashes) AND expires_at > now()"),
        {"hashes": list(by_hash)},
    )
    return {by_hash[row.id_hash] for row in rows}


def _record_use(tx: Transaction, session_id: str, api_key_id: UUID, *, idle_hours: float, days: int) -> None:
    # Skipped if another request holds the row: no request waits for a timestamp.
    tx.run(
        text(
            """UPDATE console_sessions SET last_used_at = now(),
                   expires_at = least(now() + make_interval(secs => :seconds),
                                      created_at + make_interval(days => :days))
               WHERE id_hash IN (SELECT id_hash FROM console_sessions WHERE id_hash = :hash
                                 FOR NO KEY UPDATE SKIP LOCKED)"""
        ),
        {"hash": _hash(session_id), "seconds": idle_hours * 3600, "days": days},
    )
    tx.run(
        text(
            """UPDATE api_keys SET last_used_at = now() WHERE id IN (
                   SELECT id FROM api_keys WHERE id = :id FOR NO KEY UPDATE SKIP LOCKED)"""
        ),
        {"id": api_key_id},
    )


def close_session(tx: Transaction, session_id: str) -> bool:
    """End a session; False if there was none."""
    row = tx.first(
        text("DELETE FROM console_sessions WHERE id_hash = :hash RETURNING id_hash"), {"hash": _hash(session_id)}
    )
    return row is not None


# --- the list of a user's sessions ---


def list_sessions(tx: Transaction, user_id: UUID, *, current: str = "") -> list[Row[Any]]:
    """Return the open sessions of a user, last used first. `current` = the session id that asks: it `is_current`."""
    return tx.all(
        text(
            """SELECT s.id, s.method, s.persistent, s.device, s.address, s.created_at, s.last_used_at, s.expires_at,
                   k.name AS key_name, s.id_hash = :current AS is_current
               FROM console_sessions s JOIN api_keys k ON k.id = s.api_key_id
               WHERE k.user_id = :user AND s.expires_at > now() ORDER BY s.last_used_at DESC, s.id LIMIT 200"""
        ),
        {"user": user_id, "current": _hash(current) if current else ""},
    )


def end_sessions(tx: Transaction, user_id: UUID, *, session: UUID | None = None, keep: str = "") -> int:
    """End one session of a user, or all except the one with the session id `keep`; return how many ended."""
    result = tx.run(
        text(
            """DELETE FROM console_sessions s USING api_keys k WHERE k.id = s.api_key_id AND k.user_id = :user
               AND s.id_hash <> :keep AND (CAST(:session AS uuid) IS NULL OR s.id = CAST(:session AS uuid))"""
        ),
        {"user": user_id, "session": session, "keep": _hash(keep) if keep else ""},
    )
    return int(result.rowcount)
