"""Web console sessions: opened with an API key and found by their cookie. Only hashes are stored."""

import hashlib
import secrets
from uuid import UUID

from sqlalchemy import text

from worker.db.engine import Transaction
from worker.db.users.api_keys import KeyOwner, key_owner

# Maximum lifetime of a session, even if it is in use.
_MAX_DAYS = 30


def _hash(session_id: str) -> str:
    return hashlib.sha256(session_id.encode()).hexdigest()


def open_session(tx: Transaction, api_key_id: UUID, *, hours: float) -> str:
    """Create a session of this key and return its id, which cannot be read again. Expired sessions are deleted."""
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
            """INSERT INTO console_sessions (id_hash, api_key_id, expires_at)
               VALUES (:hash, :key, now() + make_interval(secs => :seconds))"""
        ),
        {"hash": _hash(session_id), "key": api_key_id, "seconds": hours * 3600},
    )
    return session_id


def find_session(tx: Transaction, session_id: str, *, hours: float) -> KeyOwner | None:
    """Return the owner of a session; None if the session has expired, or its key or user is no longer valid.

    At most once a minute, extends the session by `hours` and records the use of the key.
    """
    row = tx.first(
        text(
            """SELECT k.id AS api_key_id, u.id AS user_id, u.name, u.role, k.scopes, k.models,
                   coalesce(k.root_id, k.id) AS root_id, u.limits, u.soft_limits,
                   k.limits AS key_limits, k.soft_limits AS key_soft_limits,
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
        _record_use(tx, session_id, row.api_key_id, hours)
    return key_owner(row)


def open_sessions(tx: Transaction, session_ids: set[str]) -> set[str]:
    """Return those of the sessions that have not ended. Their keys and users are not checked."""
    by_hash = {_hash(session_id): session_id for session_id in session_ids}
    rows = tx.all(
        text("SELECT id_hash FROM console_sessions WHERE id_hash = ANY(:hashes) AND expires_at > now()"),
        {"hashes": list(by_hash)},
    )
    return {by_hash[row.id_hash] for row in rows}


def _record_use(tx: Transaction, session_id: str, api_key_id: UUID, hours: float) -> None:
    # Skipped if another request holds the row: no request waits for a timestamp.
    tx.run(
        text(
            """UPDATE console_sessions SET last_used_at = now(),
                   expires_at = least(now() + make_interval(secs => :seconds),
                                      created_at + make_interval(days => :days))
               WHERE id_hash IN (SELECT id_hash FROM console_sessions WHERE id_hash = :hash
                                 FOR NO KEY UPDATE SKIP LOCKED)"""
        ),
        {"hash": _hash(session_id), "seconds": hours * 3600, "days": _MAX_DAYS},
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
