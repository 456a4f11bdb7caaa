"""All encrypted columns: which master key encrypts each value, and re-encryption with the newest key.

A value is replaced only if it is unchanged since it was read, one row per transaction. So a rotation can run while the
platform is in use, and continues where it stopped after an interruption.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from worker.core.security.encryption import SecretUnreadableError, encryption_key_id, reencrypt_secret
from worker.db.accounts import accounts
from worker.db.engine import retry_when_database_unavailable, transaction
from worker.db.platform import root_key
from worker.db.users import audit_log
from worker.db.webhooks import endpoints

_PAGE = 200


@dataclass(frozen=True, slots=True)
class EncryptedColumn:
    """A column of encrypted values. `context` computes the encryption context from the column `bound`."""

    table: str
    column: str
    bound: str
    context: Callable[[Any], str]
    id: str = "id"


def _proxy_context(lookup_hash: str) -> str:
    return accounts.proxy_context(accounts.secret_context(lookup_hash))


def _endpoint_context(endpoint_id: UUID) -> str:
    return endpoints.secret_context(endpoint_id)


ENCRYPTED_COLUMNS = (
    EncryptedColumn("accounts", "secret", "lookup_hash", accounts.secret_context),
    EncryptedColumn("accounts", "proxy", "lookup_hash", _proxy_context),
    EncryptedColumn("account_checks", "secret", "lookup_hash", accounts.secret_context),
    EncryptedColumn("account_checks", "proxy", "lookup_hash", _proxy_context),
    EncryptedColumn("webhook_endpoints", "secret", "id", _endpoint_context),
    EncryptedColumn("webhook_endpoints", "previous_secret", "id", _endpoint_context),
    EncryptedColumn("keyring", "sealed", "name", root_key.key_context, id="name"),
)


@dataclass(frozen=True, slots=True)
class _Value:
    id: Any
    encrypted: str
    context: str


def count_by_key() -> dict[str | None, int]:
    """Decrypt every value and return the number of values per key id; None = not decryptable with any key."""
    return dict(Counter(encryption_key_id(value.encrypted, context=value.context) for _, value in _values()))


def reencrypt_all(*, on_change: Callable[[], object] = lambda: None) -> int:
    """Re-encrypt all values with the newest key; return how many changed. Undecryptable values stay unchanged."""
    changed = 0
    for column, value in _values():
        try:
            encrypted = reencrypt_secret(value.encrypted, context=value.context)
        except SecretUnreadableError:
            continue
        if encrypted is not None and _replace(column, value, encrypted):
            changed += 1
            on_change()
    return changed


def record_rotation(*, actor: str, key_id: str, changed: int) -> None:
    """Record the rotation in the audit log."""
    with transaction() as tx:
        actor_row = audit_log.Actor(name=actor, user_id=None, address="")
        audit_log.record_action(tx, actor_row, "master_key.rotate", f"key {key_id}", values=changed)


def _values() -> Iterator[tuple[EncryptedColumn, _Value]]:
    for column in ENCRYPTED_COLUMNS:
        after = None
        while page := _read(column, after):
            yield from ((column, value) for value in page)
            after = page[-1].id


@retry_when_database_unavailable
def _read(column: EncryptedColumn, after: Any) -> list[_Value]:
    # Finished session checks have empty secrets.
    filled = f"{column.column} <> '' AND (:first OR {column.id} > :after)"
    statement = text(
        f"""SELECT {column.id} AS id, {column.column} AS encrypted, {column.bound} AS bound FROM {column.table}
            WHERE {filled} ORDER BY {column.id} LIMIT :page"""
    )
    lowest = UUID(int=0) if column.id == "id" else ""
    with transaction() as tx:
        rows = tx.all(statement, {"first": after is None, "after": lowest if after is None else after, "page": _PAGE})
    return [_Value(id=row.id, encrypted=row.encrypted, context=column.context(row.bound)) for row in rows]


@retry_when_database_unavailable
def _replace(column: EncryptedColumn, value: _Value, encrypted: str) -> bool:
    statement = text(
        f"UPDATE {column.table} SET {column.column} = :new WHERE {column.id} = :id AND {column.column} = :old"
    )
    with transaction() as tx:
        return bool(tx.run(statement, {"id": value.id, "new": encrypted, "old": value.encrypted}).rowcount)
