"""The daily free credits of accounts: each day of an account's region is taken at most once by the platform itself.

The row is written before the call. A worker that dies in between leaves a row without an answer, and that day is over.
"""

from uuid import UUID

from sqlalchemy import text

from worker.db.accounts import accounts
from worker.db.accounts.accounts import AccountRow
from worker.db.accounts.eligibility import is_open
from worker.db.accounts.model_listings import RECENT_DAYS
from worker.db.engine import Transaction

# The day at the account's place, as in `worker.tasks.stages.cooldowns`.
_TODAY = "(clock_timestamp() AT TIME ZONE CASE WHEN a.region = 'cn' THEN 'Asia/Shanghai' ELSE 'UTC' END)::date"

_CLAIM_DAILY = text(
    f"""/* claim_daily_receive */
    INSERT INTO credit_receives (account_id, day, how)
    SELECT a.id, {_TODAY}, 'daily' FROM accounts a
    WHERE a.state = 'ok' AND {is_open("a")} AND coalesce(a.daily_receive, :everybody) AND NOT (a.id = ANY(:tried))
      AND (a.rest_until IS NULL OR a.rest_until <= clock_timestamp() OR a.rest_code = 'insufficient_quota')
      AND (a.pool OR a.user_id IS NOT NULL OR a.last_submit_at > clock_timestamp() - make_interval(days => :days))
      AND NOT EXISTS (SELECT 1 FROM credit_receives r WHERE r.account_id = a.id AND r.day = {_TODAY})
    ORDER BY a.id LIMIT 1
    ON CONFLICT DO NOTHING RETURNING account_id"""
)


def claim_daily(tx: Transaction, *, enabled_by_default: bool, tried: list[UUID]) -> AccountRow | None:
    """Take one account whose day is not taken yet. `enabled_by_default` = also those that were not told so one by one."""
    row = tx.first(_CLAIM_DAILY, {"everybody": enabled_by_default, "tried": tried, "days": RECENT_DAYS})
    return accounts.get_account(tx, row.account_id) if row is not None else None


def claim_when_empty(tx: Transaction, account_id: UUID, *, enabled_by_default: bool) -> bool:
    """Take today of an account that was found without credits; False when it is taken, or not wanted."""
    row = tx.first(
        text(
            f"""INSERT INTO credit_receives (account_id, day, how)
                SELECT a.id, {_TODAY}, 'empty' FROM accounts a
                WHERE a.id = :id AND coalesce(a.daily_receive, :everybody)
                ON CONFLICT DO NOTHING RETURNING account_id"""
        ),
        {"id": account_id, "everybody": enabled_by_default},
    )
    return row is not None


def record_result(
    tx: Transaction, account_id: UUID, *, gained: int | None, error_code: str | None = None, manual: bool = False
) -> None:
    """What upstream answered today. `manual` = somebody asked for it (`/token/receive`), perhaps not for the first time.

    None gained = it refused, or said nothing.
    """
    if manual:
        tx.run(
            text(
                f"""INSERT INTO credit_receives AS r (account_id, day, how, gained, error_code)
                    SELECT a.id, {_TODAY}, 'asked', CAST(:gained AS integer), :error FROM accounts a WHERE a.id = :id
                    ON CONFLICT (account_id, day) DO UPDATE SET error_code = excluded.error_code,
                        gained = CASE WHEN excluded.gained IS NULL THEN r.gained
                                      ELSE coalesce(r.gained, 0) + excluded.gained END"""
            ),
            {"id": account_id, "gained": gained, "error": error_code},
        )
        return
    tx.run(
        text(
            """UPDATE credit_receives SET gained = CAST(:gained AS integer), error_code = :error
               WHERE account_id = :id AND gained IS NULL
                 AND day = (SELECT max(day) FROM credit_receives WHERE account_id = :id)"""
        ),
        {"id": account_id, "gained": gained, "error": error_code},
    )


def release_claim(tx: Transaction, account_id: UUID) -> None:
    """The call surely never left: the day is free again."""
    tx.run(
        text(
            """DELETE FROM credit_receives WHERE account_id = :id AND gained IS NULL AND error_code IS NULL
               AND day = (SELECT max(day) FROM credit_receives WHERE account_id = :id)"""
        ),
        {"id": account_id},
    )


def delete_old(tx: Transaction, *, days: int) -> int:
    """Remove what is long over; how many rows went."""
    statement = text("DELETE FROM credit_receives WHERE at < clock_timestamp() - make_interval(days => :days)")
    return int(tx.run(statement, {"days": days}).rowcount)
