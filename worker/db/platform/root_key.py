"""The root key: made once per database, kept sealed by the master key, read once per process.

Look-up hashes and derived webhook secrets hang on it, so they stay when the master key is replaced.
"""

from functools import lru_cache

from sqlalchemy import text

from worker.core.security.encryption import (
    SecretUnreadableError,
    decrypt_root_key,
    encrypt_root_key,
    generate_root_key,
    legacy_root_key,
    set_root_key,
)
from worker.core.settings import get_settings
from worker.db.engine import Transaction, retry_when_database_unavailable, transaction

_ROOT = "root"
_WRONG_KEY = (
    "DREAMERY_MASTER_KEY is not a key that this database was written with. Put back the one that was used until now; "
    "a new key goes in front of it, as in NEW,OLD. See docs/security.md."
)


def key_context(name: str) -> str:
    """What a sealed key is bound to."""
    return f"keyring:{name}"


def load_root_key() -> None:
    """Make the root key known to this process. Raises SecretUnreadableError when the master key is another one."""
    set_root_key(_root_of(get_settings().database_url))


@lru_cache(maxsize=4)
def _root_of(_database_url: str) -> bytes:
    return _read_root()


@retry_when_database_unavailable
def _read_root() -> bytes:
    with transaction() as tx:
        sealed = _sealed(tx) or _made(tx)
    try:
        return decrypt_root_key(sealed, context=key_context(_ROOT))
    except SecretUnreadableError:
        raise SecretUnreadableError(_WRONG_KEY) from None


def _sealed(tx: Transaction) -> str | None:
    row = tx.first(text("SELECT sealed FROM keyring WHERE name = :name"), {"name": _ROOT})
    return row.sealed if row is not None else None


def _made(tx: Transaction) -> str:
    """A random root key; in a database of an earlier version the one that its hashes were made with."""
    tx.run(text("SELECT pg_advisory_xact_lock(hashtextextended('keyring', 0))"))
    if (known := _sealed(tx)) is not None:
        return known
    used = tx.first(
        text(
            """SELECT EXISTS (SELECT 1 FROM accounts) OR EXISTS (SELECT 1 FROM jobs) OR EXISTS (SELECT 1 FROM users)
                   OR EXISTS (SELECT 1 FROM webhook_endpoints) AS used"""
        )
    )
    root = legacy_root_key() if used is not None and used.used else generate_root_key()
    sealed = encrypt_root_key(root, context=key_context(_ROOT))
    tx.run(text("INSERT INTO keyring (name, sealed) VALUES (:name, :sealed)"), {"name": _ROOT, "sealed": sealed})
    return sealed
