"""The root key: created once per database, stored encrypted with the master key, read once per process.

Lookup hashes and derived webhook secrets are keyed with it, so they survive a master-key rotation.
"""

from functools import lru_cache

from sqlalchemy import text

from worker.core.security.encryption import (
    SecretUnreadableError,
    decrypt_root_key,
    encrypt_root_key,
    generate_root_key,
    legacy_root_key,
    master_keys,
    set_root_key,
)
from worker.core.settings import get_settings
from worker.db.engine import Transaction, retry_when_database_unavailable, transaction

_ROOT = "root"
WRONG_KEY = (
    "DREAMERY_MASTER_KEY does not match this database. Restore the previous key; to rotate, put the new key in front "
    "of it, as in NEW,OLD. See docs/security.md."
)


def key_context(name: str) -> str:
    """Encryption context of a stored key."""
    return f"keyring:{name}"


def load_root_key() -> None:
    """Load the root key into this process. Raises SecretUnreadableError if the master key does not match."""
    set_root_key(_cached_root_key(get_settings().database_url))


def try_to_load_root_key() -> None:
    """Like `load_root_key`, but does not wait for a database that is away. Raises its error."""
    _read_root_key()
    load_root_key()


@lru_cache(maxsize=4)
def _cached_root_key(_database_url: str) -> bytes:
    return retry_when_database_unavailable(_read_root_key)()


@retry_when_database_unavailable
def matches_database() -> bool:
    """Whether the master key of this process decrypts the root key that the database has now, or there is none."""
    with transaction() as tx:
        encrypted = _stored_root_key(tx)
    try:
        return encrypted is None or bool(decrypt_root_key(encrypted, context=key_context(_ROOT)))
    except SecretUnreadableError:
        return False


def _read_root_key() -> bytes:
    master_keys()  # says that there is none, rather than that it does not match
    with transaction() as tx:
        encrypted = _stored_root_key(tx) or _create_root_key(tx)
    try:
        return decrypt_root_key(encrypted, context=key_context(_ROOT))
    except SecretUnreadableError:
        raise SecretUnreadableError(WRONG_KEY) from None


def _stored_root_key(tx: Transaction) -> str | None:
    row = tx.first(text("SELECT sealed FROM keyring WHERE name = :name"), {"name": _ROOT})
    return row.sealed if row is not None else None


def _create_root_key(tx: Transaction) -> str:
    """Create a random root key. A database of an earlier version gets the key its hashes were made with."""
    tx.run(text("SELECT pg_advisory_xact_lock(hashtextextended('keyring', 0))"))
    if (stored := _stored_root_key(tx)) is not None:
        return stored
    used = tx.first(
        text(
            """SELECT EXISTS (SELECT 1 FROM accounts) OR EXISTS (SELECT 1 FROM jobs) OR EXISTS (SELECT 1 FROM users)
                   OR EXISTS (SELECT 1 FROM webhook_endpoints) AS used"""
        )
    )
    root = legacy_root_key() if used is not None and used.used else generate_root_key()
    encrypted = encrypt_root_key(root, context=key_context(_ROOT))
    tx.run(text("INSERT INTO keyring (name, sealed) VALUES (:name, :sealed)"), {"name": _ROOT, "sealed": encrypted})
    return encrypted
