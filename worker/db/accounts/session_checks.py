"""Account checks: questions about session ids that the API asks and a worker answers, without a job or an account row.

A row is open for as long as somebody may wait for it, and leaves minutes later.
"""

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.db.accounts import accounts
from worker.db.accounts.accounts import AccountRow, PresentedToken
from worker.db.engine import Transaction

# Nobody waits longer, so an older question is not put to upstream any more.
OPEN_SECONDS = 30.0

_OPEN = "state = 'queued' AND created_at > clock_timestamp() - make_interval(secs => :open)"


def count_open(tx: Transaction, owner: str) -> tuple[int, int]:
    """Unanswered questions from this place, and from everywhere."""
    row = tx.first(
        text(f"SELECT count(*) FILTER (WHERE owner = :owner) AS own, count(*) AS n FROM account_checks WHERE {_OPEN}"),
        {"owner": owner, "open": OPEN_SECONDS},
    )
    return (int(row.own), int(row.n)) if row is not None else (0, 0)


def create_checks(tx: Transaction, *, owner: str, what: str, tokens: dict[UUID, PresentedToken]) -> None:
    """Write a question (`check`, `points` or `receive`) for each token, under the given ids."""
    tx.run(
        text(
            """INSERT INTO account_checks (id, owner, what, lookup_hash, region, secret, proxy, proxy_hash)
               VALUES (:id, :owner, :what, :hash, :region, :secret, :proxy, :proxy_hash)"""
        ),
        [
            {
                "id": check_id,
                "owner": owner,
                "what": what,
                "hash": token.lookup_hash,
                "region": token.region,
                "secret": token.secret,
                "proxy": token.proxy,
                "proxy_hash": token.proxy_hash,
            }
            for check_id, token in tokens.items()
        ],
    )


def create_account_checks(tx: Transaction, *, owner: str, accounts_by_check: dict[UUID, UUID]) -> None:
    """Write the wish for a check-up of each account; the row holds no secret, for the account has its own."""
    tx.run(
        text(
            """INSERT INTO account_checks (id, owner, what, lookup_hash, region, secret)
               SELECT :id, :owner, 'checkup', lookup_hash, region, '' FROM accounts WHERE id = :account_id"""
        ),
        [{"id": check, "owner": owner, "account_id": account} for check, account in accounts_by_check.items()],
    )


def claim(tx: Transaction, check_id: UUID) -> Row[Any] | None:
    """Take an open question, once: if its worker dies, whoever waits is told so instead of asking upstream twice."""
    return tx.first(
        text(
            f"""UPDATE account_checks SET claimed_at = clock_timestamp()
                WHERE id = :id AND claimed_at IS NULL AND {_OPEN} RETURNING *"""
        ),
        {"id": check_id, "open": OPEN_SECONDS},
    )


def account_of(tx: Transaction, row: Row[Any]) -> tuple[AccountRow, UUID | None]:
    """The account to ask about, and its id when it is known here; the way out is the one that was presented."""
    known = accounts.find_by_lookup_hash(tx, row.lookup_hash)
    if known is None:
        stranger = AccountRow(
            id=row.id,
            label=f"session-{row.lookup_hash[:8]}",
            region=row.region,
            secret=row.secret,
            pool=False,
            slots={},
            submits_per_minute=1,
            cluster=None,
            cluster_age_seconds=None,
            lookup_context=accounts.secret_context(row.lookup_hash),
            proxy=row.proxy,
        )
        return stranger, None
    return (known if row.proxy_hash is None else replace(known, proxy=row.proxy)), known.id


def save_result(tx: Transaction, check_id: UUID, result: dict[str, Any]) -> bool:
    """queued -> succeeded: what upstream said, a refusal included; the secrets are no longer needed."""
    row = tx.first(
        text(
            """UPDATE account_checks SET state = 'succeeded', result = CAST(:result AS jsonb), secret = '', proxy = NULL
               WHERE id = :id AND state = 'queued' RETURNING id"""
        ),
        {"id": check_id, "result": json.dumps(result)},
    )
    return row is not None


def results(tx: Transaction, check_ids: list[UUID]) -> dict[UUID, dict[str, Any]]:
    """The answers that are there."""
    rows = tx.all(
        text("SELECT id, result FROM account_checks WHERE id = ANY(:ids) AND state = 'succeeded'"), {"ids": check_ids}
    )
    return {row.id: row.result for row in rows}


def delete_old(tx: Transaction, *, minutes: int) -> int:
    """Remove what is over; how many rows went."""
    statement = text("DELETE FROM account_checks WHERE created_at < clock_timestamp() - make_interval(mins => :m)")
    return int(tx.run(statement, {"m": minutes}).rowcount)
