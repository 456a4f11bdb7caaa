"""The present rights of API keys, for requests that stay open after their key was authenticated."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from worker.db.engine import Transaction
from worker.db.users.api_keys import VALID


@dataclass(frozen=True, slots=True)
class KeyRights:
    """The role of a key's user, and the scopes and models of the key; None = not restricted."""

    role: str
    scopes: frozenset[str] | None
    models: frozenset[str] | None


def current_rights(tx: Transaction, key_ids: list[UUID]) -> dict[UUID, KeyRights]:
    """Return the rights of those keys that are valid and whose user is not disabled."""
    rows = tx.all(
        text(
            f"""/* current_rights */ SELECT k.id, u.role, k.scopes, k.models
                FROM api_keys k JOIN users u ON u.id = k.user_id
                WHERE k.id = ANY(:ids) AND NOT u.disabled AND {VALID}"""
        ),
        {"ids": key_ids},
    )
    return {
        row.id: KeyRights(
            role=row.role,
            scopes=frozenset(row.scopes) if row.scopes is not None else None,
            models=frozenset(row.models) if row.models is not None else None,
        )
        for row in rows
    }
