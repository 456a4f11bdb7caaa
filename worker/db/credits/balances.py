"""Credit readings of accounts: storing them, and the credit reports of an account."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.db.accounts.available_credits import credits_left, reserved
from worker.db.column_values import clamp
from worker.db.engine import Transaction

# All readings of the last days are kept; of earlier days only the last one, up to the maximum that charts show.
FULL_DETAIL_DAYS = 3
MAX_DAYS = 400
# An unchanged value is stored again only if the last reading is older than this.
_SAME_SECONDS = 3600
# Maximum age of a reading that decides whether a refusal was caused by missing credits.
_FRESH_SECONDS = 120


def record_credits(tx: Transaction, account_id: UUID, left: int, *, seconds_ago: float = 0.0) -> None:
    """Store a reading. `seconds_ago` = age of the request, so a job accepted since then counts as not included.

    A reading older than the stored one is ignored.
    """
    values = {"id": account_id, "credits": clamp(left), "ago": max(seconds_ago, 0.0), "same": _SAME_SECONDS}
    row = tx.first(
        text(
            """UPDATE accounts SET credits = :credits, credits_at = clock_timestamp() - make_interval(secs => :ago)
               WHERE id = :id AND (credits_at IS NULL
                   OR credits_at <= clock_timestamp() - make_interval(secs => :ago)) RETURNING credits_at"""
        ),
        values,
    )
    if row is None:
        return
    tx.run(
        text(
            """INSERT INTO credit_readings (account_id, at, credits)
               SELECT :id, :at, :credits WHERE NOT EXISTS (
                   SELECT 1 FROM (SELECT at, credits FROM credit_readings WHERE account_id = :id
                                  ORDER BY at DESC LIMIT 1) last
                   WHERE last.credits = :credits AND last.at > CAST(:at AS timestamptz) - make_interval(secs => :same))
               ON CONFLICT DO NOTHING"""
        ),
        {**values, "at": row.credits_at},
    )


def recent_credits(tx: Transaction, account_id: UUID, *, within: float) -> int | None:
    """Return the credits if the last reading is at most `within` seconds old, else None."""
    row = tx.first(
        text(
            """SELECT credits FROM accounts
               WHERE id = :id AND credits_at > clock_timestamp() - make_interval(secs => :within)"""
        ),
        {"id": account_id, "within": within},
    )
    return row.credits if row is not None else None


def available_credits(tx: Transaction, account_id: UUID) -> int | None:
    """Return the credits of an account that are not spent or reserved; None = unknown."""
    row = tx.first(text(f"SELECT {credits_left('a')} AS left FROM accounts a WHERE a.id = :id"), {"id": account_id})
    return None if row is None or row.left is None else int(row.left)


def account_covers_price(tx: Transaction, job_id: UUID) -> bool:
    """Return whether the account can certainly pay for a submitting job: then a credits error has another cause."""
    row = tx.first(
        text(
            f"""SELECT 1 FROM jobs j JOIN accounts a ON a.id = j.account_id
                WHERE j.id = :id AND j.price IS NOT NULL AND {credits_left("a")} >= 0
                  AND a.credits_at > clock_timestamp() - make_interval(secs => :fresh)"""
        ),
        {"id": job_id, "fresh": _FRESH_SECONDS},
    )
    return row is not None


def delete_old_readings(tx: Transaction, *, limit: int) -> int:
    """Delete readings that no chart needs; return how many."""
    rows = tx.all(
        text(
            """/* thin_readings */
            DELETE FROM credit_readings WHERE (account_id, at) IN (
                SELECT r.account_id, r.at FROM credit_readings r
                WHERE r.at < now() - make_interval(days => :most)
                   OR (r.at < now() - make_interval(days => :whole) AND EXISTS (
                       SELECT 1 FROM credit_readings later WHERE later.account_id = r.account_id AND later.at > r.at
                         AND (later.at AT TIME ZONE 'UTC')::date = (r.at AT TIME ZONE 'UTC')::date))
                ORDER BY r.at LIMIT :limit)
            RETURNING account_id"""
        ),
        {"most": MAX_DAYS, "whole": FULL_DETAIL_DAYS, "limit": limit},
    )
    return len(rows)


def credit_summary(tx: Transaction, account_id: UUID) -> Row[Any] | None:
    """Return the last reading, reserved and available credits of the account; NULL = unknown."""
    return tx.first(
        text(
            f"""SELECT a.credits, a.credits_at, a.daily_receive, {credits_left("a")} AS left,
                       {reserved("a")} AS reserved
                FROM accounts a WHERE a.id = :id"""
        ),
        {"id": account_id},
    )


def readings(tx: Transaction, account_id: UUID, *, since: datetime | None, limit: int) -> list[Row[Any]]:
    """Return the newest readings, oldest first."""
    rows = tx.all(
        text(
            """SELECT at, credits FROM credit_readings
               WHERE account_id = :id AND (CAST(:since AS timestamptz) IS NULL OR at >= :since)
               ORDER BY at DESC LIMIT :limit"""
        ),
        {"id": account_id, "since": since, "limit": limit},
    )
    return rows[::-1]


def reservations(tx: Transaction, account_id: UUID, *, limit: int) -> list[Row[Any]]:
    """Return the jobs in flight with their expected cost and whether upstream accepted them (`taken`)."""
    return tx.all(
        text(
            """SELECT id, kind, model, state, price, charged, submitted_at, submitted_at IS NOT NULL AS taken FROM jobs
               WHERE account_id = :id AND holds_slot ORDER BY id LIMIT :limit"""
        ),
        {"id": account_id, "limit": limit},
    )


def spent_by_day(tx: Transaction, account_id: UUID, *, days: int) -> list[Row[Any]]:
    """Return credits and jobs per UTC day, newest first; `unknown` = jobs with neither a charge nor a price."""
    return tx.all(
        text(
            """/* spent_by_day */
            SELECT (submitted_at AT TIME ZONE 'UTC')::date AS day, count(*) AS jobs,
                coalesce(sum(coalesce(charged, price)), 0) AS credits,
                coalesce(sum(charged) FILTER (WHERE settled_at IS NOT NULL), 0) AS settled,
                count(*) FILTER (WHERE charged IS NULL AND price IS NULL) AS unknown
            FROM jobs WHERE account_id = :id
              AND submitted_at > now() - make_interval(days => :days)
            GROUP BY 1 ORDER BY 1 DESC"""
        ),
        {"id": account_id, "days": days},
    )


def daily_claims(tx: Transaction, account_id: UUID, *, limit: int) -> list[Row[Any]]:
    """Return the days on which daily credits were claimed, newest first."""
    return tx.all(
        text("SELECT * FROM credit_receives WHERE account_id = :id ORDER BY day DESC LIMIT :limit"),
        {"id": account_id, "limit": limit},
    )
