"""Accounts as administrators see and change them. How jobs use them is in `accounts.py`."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.db.engine import Transaction
from worker.db.purse import credits_left

# What an administrator may set; None takes an account's own limit away.
LIMITS = ("max_images", "max_videos", "submits_per_minute")
NULLABLE = (*LIMITS, "daily_receive")
_SEEN = f"""a.id, a.label, a.region, a.pool, a.state, a.rest_until, a.rest_code, a.max_images, a.max_videos,
    a.submits_per_minute, a.credits, a.credits_at, a.last_submit_at, a.created_at, a.proxy IS NOT NULL AS has_proxy,
    a.daily_receive, {credits_left("a")} AS credits_left,
    (SELECT count(*) FROM jobs j WHERE j.account_id = a.id AND j.holds_slot) AS in_flight"""


def list_accounts(tx: Transaction, *, pool_only: bool, after: UUID | None, limit: int) -> list[Row[Any]]:
    """Accounts, oldest first; never their secrets."""
    return tx.all(
        text(
            f"""SELECT {_SEEN} FROM accounts a
                WHERE (NOT :pool_only OR a.pool) AND a.state <> 'retired'
                  AND (CAST(:after AS uuid) IS NULL OR a.id > :after)
                ORDER BY a.id LIMIT :limit"""
        ),
        {"pool_only": pool_only, "after": after, "limit": limit},
    )


def see_account(tx: Transaction, account_id: UUID) -> Row[Any] | None:
    """One account, retired or not."""
    return tx.first(text(f"SELECT {_SEEN} FROM accounts a WHERE a.id = :id"), {"id": account_id})


def change_account(tx: Transaction, account_id: UUID, changes: dict[str, Any]) -> None:
    """Set a label, a state (`ok`, `paused`, `retired`), whether it is in the pool, or limits. `changes` by column."""
    known = [name for name in ("label", "state", "pool", *NULLABLE) if name in changes]
    if known:
        sets = ", ".join(f"{name} = :{name}" for name in known)
        tx.run(text(f"UPDATE accounts SET {sets} WHERE id = :id"), {**changes, "id": account_id})


def end_rest(tx: Transaction, account_id: UUID) -> None:
    """Believe that the reason of its rest is gone: the next job will show."""
    tx.run(
        text("UPDATE accounts SET rest_until = NULL, rest_code = NULL, kind_rests = '{}' WHERE id = :id"),
        {"id": account_id},
    )
