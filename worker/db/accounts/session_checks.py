"""Session checks: the API inserts a check of a session id and a worker runs it, without a job or an account row.

A row is open while a request may wait for it, and is deleted minutes later.
"""

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.db.accounts import accounts
from worker.db.accounts.accounts import AccountRow, PresentedToken
from worker.db.engine import Transaction

# No request waits longer, so an older check is not run.
OPEN_SECONDS = 30.0
# Checks in progress. They wait for proxies that their owner chose, so the rest waits for them.
MAX_RUNNING_PER_OWNER = 12

_OPEN = "state = 'queued' AND created_at > clock_timestamp() - make_interval(secs => :open)"


def count_open(tx: Transaction, owner: str) -> tuple[int, int]:
    """Return the number of open checks of this owner, and of all owners."""
    row = tx.first(
        text(f"SELECT count(*) FILTER (WHERE owner = :owner) AS own, count(*) AS n FROM account_checks WHERE {_OPEN}"),
        {"owner": owner, "open": OPEN_SECONDS},
    )
    return (int(row.own), int(row.n)) if row is not None else (0, 0)


def create_checks(tx: Transaction, *, owner: str, what: str, tokens: dict[UUID, PresentedToken]) -> None:
    """Insert a check (`check`, `points` or `receive`) for each token, under the given ids."""
    tx.run(
        text(
            """INSERT INTO account_checks (id, owner, what, provider, lookup_hash, region, secret, proxy, proxy_hash)
               VALUES (:id, :owner, :what, :provider, :hash, :region, :secret, :proxy, :proxy_hash)"""
        ),
        [
            {
                "id": check_id,
                "owner": owner,
                "what": what,
                "provider": token.provider,
                "hash": token.lookup_hash,
                "region": token.region,
                "secret": token.secret,
                "proxy": token.proxy,
                "proxy_hash": token.proxy_hash,
            }
            for check_id, token in tokens.items()
        ],
    )


def create_account_checks(
    tx: Transaction,
    *,
    owner: str,
    accounts_by_check: dict[UUID, UUID],
    what: str = "checkup",
    params: dict[str, Any] | None = None,
) -> None:
    """Insert a check of each account: `checkup`, or `prove` with the step. The row holds no secret, because the account
    has it.
    """
    tx.run(
        text(
            """INSERT INTO account_checks (id, owner, what, provider, lookup_hash, region, secret, params)
               SELECT :id, :owner, :what, provider, lookup_hash, region, '', CAST(:params AS jsonb)
               FROM accounts WHERE id = :account_id"""
        ),
        [
            {"id": check, "owner": owner, "account_id": account, "what": what, "params": json.dumps(params)}
            for check, account in accounts_by_check.items()
        ],
    )


# Serialize the claims of one owner, because the count below must see all earlier claims.
_LOCK_OWNER = text("SELECT pg_advisory_xact_lock(hashtextextended('account-checks:' || :owner, 0))")
_CLAIM = text(
    f"""/* claim_check */
    UPDATE account_checks SET claimed_at = clock_timestamp() WHERE id = (
        SELECT id FROM account_checks WHERE owner = :owner AND claimed_at IS NULL AND {_OPEN}
            AND (NOT :alone OR id = :id)
            AND (SELECT count(*) FROM account_checks WHERE owner = :owner AND state = 'queued'
                 AND claimed_at > clock_timestamp() - make_interval(secs => :open)) < :most
        ORDER BY id <> :id, created_at, id LIMIT 1)
    RETURNING *"""
)


def claim(tx: Transaction, check_id: UUID, *, alone: bool = False) -> Row[Any] | None:
    """Claim an open check, once only: if its worker dies, the waiting request times out instead of a second call.

    It is this check, or unless `alone` the oldest open one of the same owner. None if no check is open, or if
    `MAX_RUNNING_PER_OWNER` are in progress.
    """
    named = tx.first(text("SELECT owner FROM account_checks WHERE id = :id"), {"id": check_id})
    if named is None:
        return None
    tx.run(_LOCK_OWNER, {"owner": named.owner})
    values = {"id": check_id, "owner": named.owner, "alone": alone, "most": MAX_RUNNING_PER_OWNER}
    return tx.first(_CLAIM, {**values, "open": OPEN_SECONDS})


def account_of(tx: Transaction, row: Row[Any]) -> tuple[AccountRow, UUID | None]:
    """Return the account to check, with the proxy of the request, and its id if it has an account row."""
    known = accounts.find_by_lookup_hash(tx, row.lookup_hash)
    if known is None:
        unregistered = AccountRow(
            id=row.id,
            label=f"session-{row.lookup_hash[:8]}",
            provider=row.provider,
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
        return unregistered, None
    return (known if row.proxy_hash is None else replace(known, proxy=row.proxy)), known.id


def save_result(tx: Transaction, check_id: UUID, result: dict[str, Any]) -> bool:
    """queued -> succeeded: store the result, even a refusal, and delete the secrets. False if it was already stored."""
    row = tx.first(
        text(
            """UPDATE account_checks SET state = 'succeeded', result = CAST(:result AS jsonb), secret = '', proxy = NULL
               WHERE id = :id AND state = 'queued' RETURNING id"""
        ),
        {"id": check_id, "result": json.dumps(result)},
    )
    return row is not None


def results(tx: Transaction, check_ids: list[UUID]) -> dict[UUID, dict[str, Any]]:
    """Return the finished results, by check id."""
    rows = tx.all(
        text("SELECT id, result FROM account_checks WHERE id = ANY(:ids) AND state = 'succeeded'"), {"ids": check_ids}
    )
    return {row.id: row.result for row in rows}


def proof_result(tx: Transaction, check_id: UUID, account_id: UUID) -> tuple[dict[str, Any] | None, float] | None:
    """Return the result of a step of the proof of this account, if there is one yet, and its age in seconds."""
    row = tx.first(
        text(
            """SELECT c.result, extract(epoch FROM clock_timestamp() - c.created_at) AS age
               FROM account_checks c JOIN accounts a ON a.lookup_hash = c.lookup_hash
               WHERE c.id = :id AND a.id = :account_id AND c.what = 'prove'"""
        ),
        {"id": check_id, "account_id": account_id},
    )
    return None if row is None else (row.result, float(row.age))


def delete_old(tx: Transaction, *, minutes: int) -> int:
    """Delete checks older than `minutes`; return how many. A step of a proof is kept for an hour."""
    statement = text(
        """DELETE FROM account_checks WHERE created_at < clock_timestamp()
               - make_interval(mins => CASE WHEN what = 'prove' THEN 60 ELSE :m END)"""
    )
    return int(tx.run(statement, {"m": minutes}).rowcount)
