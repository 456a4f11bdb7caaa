"""The accounts and groups of accounts that the jobs of a key may use: their names in requests, and in answers."""

from collections.abc import Iterable
from typing import Any, Protocol
from uuid import UUID

from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.db.accounts import model_listings
from worker.db.engine import Transaction


class Selection(Protocol):
    """The part of a request that names accounts and groups."""

    accounts: list[str] | None
    account_groups: list[str] | None


def read_accounts(tx: Transaction, names: list[str] | None, *, user_id: UUID, pool: bool) -> list[UUID] | None:
    """Return the accounts with these ids or labels: those of the user, and with `pool` those of the platform.

    A label that several of them have means all. Raises `account_not_found`.
    """
    if names is None:
        return None
    found: dict[UUID, None] = {}
    for name in names:
        ids = model_listings.accounts_named(
            tx, account_id=parse_public_id("account", name), label=name, user_id=user_id, pool=pool
        )
        if not ids:
            raise DreameryError("account_not_found", f"No account {name[:60]!r}.", param="accounts")
        found |= dict.fromkeys(ids)
    return list(found)


def shown_accounts(ids: Iterable[UUID] | None) -> list[str] | None:
    """Return the public ids of a key's accounts."""
    return None if ids is None else [public_id("account", one) for one in ids]


def has_no_more_accounts(row: Any, other: Any) -> bool:
    """Whether a key may use no accounts that another key may not use."""
    if other.accounts is None and other.account_groups is None:
        return True
    if row.accounts is None and row.account_groups is None:
        return False
    return set(row.accounts or ()) <= set(other.accounts or ()) and set(row.account_groups or ()) <= set(
        other.account_groups or ()
    )
