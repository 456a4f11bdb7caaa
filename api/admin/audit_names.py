"""Names of the objects that entries of the audit log mention by id, and the users of keys."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from worker.core.ids import parse_public_id, public_id
from worker.db.engine import Row, Transaction
from worker.db.users import usage

_KINDS = ("user", "key", "account", "album", "job")


def users_of_keys(tx: Transaction, rows: Iterable[Row[Any]]) -> list[dict[str, str]]:
    """Return for each entry the user of the keys that it mentions, both as ids."""
    mentioned = [{one: parsed for one, (kind, parsed) in _ids(row).items() if kind == "key"} for row in rows]
    owners = usage.get_key_users(tx, sorted({parsed for keys in mentioned for parsed in keys.values()}))
    return [{one: public_id("user", owners[key]) for one, key in keys.items() if key in owners} for keys in mentioned]


def names_in(tx: Transaction, rows: Iterable[Row[Any]]) -> list[dict[str, str]]:
    """Return for each entry the current names of users, keys, accounts and albums in its target and details, by id.

    The name of a job is the beginning of its prompt; a conversation has none.
    """
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
