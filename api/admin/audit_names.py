"""Names of the objects that entries of the audit log mention by id."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from worker.core.ids import parse_public_id, public_id
from worker.db.engine import Row, Transaction
from worker.db.users import usage

_KINDS = ("user", "key", "account")


def names_in(tx: Transaction, rows: Iterable[Row[Any]]) -> list[dict[str, str]]:
    """Return for each entry the current names of users, keys and accounts in its target and details, by id."""
    mentioned = [_ids(row) for row in rows]
    found: dict[str, str] = {}
    wanted: dict[str, list[UUID]] = defaultdict(list)
    for ids in mentioned:
        for kind, parsed in ids.values():
            wanted[kind].append(parsed)
    for kind, listed in wanted.items():
        found |= {public_id(kind, one): name for one, name in usage.get_names(tx, kind, list(set(listed))).items()}
    return [{one: found[one] for one in ids if one in found} for ids in mentioned]


def _ids(row: Row[Any]) -> dict[str, tuple[str, UUID]]:
    values = [row.target, *(value for value in row.details.values() if isinstance(value, str))]
    return {
        value: (kind, parsed)
        for value in values
        for kind in _KINDS
        if value.startswith(f"{kind}_") and (parsed := parse_public_id(kind, value)) is not None
    }
