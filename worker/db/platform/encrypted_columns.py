"""Every sealed column: under which master key its values are, and how they come under the newest one.

A value is replaced only if it is still the one that was read, one row per transaction, so a rotation runs beside
everything else, holds nobody up, and goes on where it stopped however it ended.
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
    """A column of sealed values. `bound` names the column that `context` turns into what they are bound to."""

    table: str
    column: str
    bound: str
    context: Callable[[Any], str]
    id: str = "id"


def _proxy(lookup_hash: str) -> str:
    return accounts.proxy_context(accounts.secret_context(lookup_hash))


def _endpoint(endpoint_id: UUID) -> str:
    return endpoints.secret_context(endpoint_id)


ENCRYPTED_COLUMNS = (
    EncryptedColumn("accounts", "secret", "lookup_hash", accounts.secret_context),
    EncryptedColumn("accounts", "proxy", "lookup_hash", _proxy),
    EncryptedColumn("account_checks", "secret", "lookup_hash", accounts.secret_context),
    EncryptedColumn("account_checks", "proxy", "lookup_hash", _proxy),
    EncryptedColumn("webhook_endpoints", "secret", "id", _endpoint),
    EncryptedColumn("webhook_endpoints", "previous_secret", "id", _endpoint),
    EncryptedColumn("keyring", "sealed", "name", root_key.key_context, id="name"),
)


@dataclass(frozen=True, slots=True)
class _Value:
    id: Any
    sealed: str
    context: str


def count_by_key() -> dict[str | None, int]:
    """How many values each key opens, by key id; those that no key opens under None. Every value is tried."""
    return dict(Counter(encryption_key_id(value.sealed, context=value.context) for _, value in _values()))


def reencrypt_all(*, on_change: Callable[[], object] = lambda: None) -> int:
    """Bring every value under the newest key; how many were changed. What no key opens stays as it is."""
    changed = 0
    for column, value in _values():
        try:
            sealed = reencrypt_secret(value.sealed, context=value.context)
        except SecretUnreadableError:
            continue
        if sealed is not None and _replace(column, value, sealed):
            changed += 1
            on_change()
    return changed


def record_rotation(*, actor: str, key_id: str, changed: int) -> None:
    """Write the act into the audit log."""
    with transaction() as tx:
        who = audit_log.Actor(name=actor, user_id=None, address="")
        audit_log.record_action(tx, who, "master_key.rotate", f"key {key_id}", values=changed)


def _values() -> Iterator[tuple[EncryptedColumn, _Value]]:
    for column in ENCRYPTED_COLUMNS:
        after = None
        while page := _read(column, after):
            yield from ((column, value) for value in page)
            after = page[-1].id


@retry_when_database_unavailable
def _read(column: EncryptedColumn, after: Any) -> list[_Value]:
    # Answered account checks are emptied, not removed.
    filled = f"{column.column} <> '' AND (:first OR {column.id} > :after)"
    statement = text(
        f"""SELECT {column.id} AS id, {column.column} AS sealed, {column.bound} AS bound FROM {column.table}
            WHERE {filled} ORDER BY {column.id} LIMIT :page"""
    )
    lowest = UUID(int=0) if column.id == "id" else ""
    with transaction() as tx:
        rows = tx.all(statement, {"first": after is None, "after": lowest if after is None else after, "page": _PAGE})
    return [_Value(id=row.id, sealed=row.sealed, context=column.context(row.bound)) for row in rows]


@retry_when_database_unavailable
def _replace(column: EncryptedColumn, value: _Value, sealed: str) -> bool:
    statement = text(
        f"UPDATE {column.table} SET {column.column} = :new WHERE {column.id} = :id AND {column.column} = :old"
    )
    with transaction() as tx:
        return bool(tx.run(statement, {"id": value.id, "new": sealed, "old": value.sealed}).rowcount)
