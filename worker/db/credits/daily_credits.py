"""Daily free credits of accounts: the platform claims each day at most once, in the day zone of the account's region.

The row is inserted before the call. If the worker dies after inserting the row, that day is not retried.
"""

import json
from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import text

from worker.core.catalog.provider_data import DEFAULT_DAY_ZONE, all_providers
from worker.db.accounts import accounts
from worker.db.accounts.accounts import AccountRow
from worker.db.accounts.eligibility import is_open
from worker.db.accounts.model_listings import RECENT_DAYS
from worker.db.accounts.owner_shares import NOTHING_TAKEN, is_free, share_of, share_values, turn_of
from worker.db.column_values import MAX_INTEGER, clamp_known
from worker.db.engine import Transaction

# The current day of the account, as in `worker.tasks.stages.cooldowns`. Needs the bind value of `_day_zones`.
_TODAY = f"""(clock_timestamp() AT TIME ZONE
    coalesce(CAST(:day_zones AS jsonb) #>> ARRAY[a.provider, a.region], '{DEFAULT_DAY_ZONE}'))::date"""


def _day_zones() -> dict[str, str]:
    return {"day_zones": json.dumps({name: dict(one.day_zones) for name, one in all_providers().items()})}


_CLAIM_DAILY = text(
    f"""/* claim_daily_receive */
    INSERT INTO credit_receives (account_id, day, how)
    SELECT a.id, {_TODAY}, 'daily' FROM accounts a
    WHERE a.state = 'ok' AND a.provider = ANY(:providers) AND {is_open("a")}
      AND coalesce(a.daily_receive, :enabled_by_default)
      AND NOT (a.id = ANY(:tried))
      AND (a.rest_until IS NULL OR a.rest_until <= clock_timestamp() OR a.rest_code = 'insufficient_quota')
      AND (a.pool OR a.user_id IS NOT NULL OR a.last_submit_at > clock_timestamp() - make_interval(days => :days))
      AND NOT EXISTS (SELECT 1 FROM credit_receives r WHERE r.account_id = a.id AND r.day = {_TODAY})
      AND {is_free("a")}
    ORDER BY {turn_of("a")}, a.id LIMIT 1
    ON CONFLICT DO NOTHING
    RETURNING account_id, (SELECT {share_of("a")} FROM accounts a WHERE a.id = account_id) AS share"""
)


def claim_daily(
    tx: Transaction,
    *,
    providers: Sequence[str],
    enabled_by_default: bool,
    tried: list[UUID],
    busy: Sequence[str] = (),
    taken: Mapping[str, int] = NOTHING_TAKEN,
) -> tuple[AccountRow, str] | None:
    """Claim today for one account of these providers. `enabled_by_default`: of accounts without an own setting.

    Return it and its share, which is not among the `busy` ones; shares of which fewer were `taken` come first.
    """
    values = {"enabled_by_default": enabled_by_default, "tried": tried, "days": RECENT_DAYS}
    values |= {"providers": list(providers), **_day_zones()}
    row = tx.first(_CLAIM_DAILY, {**values, **share_values(busy, taken)})
    account = accounts.get_account(tx, row.account_id) if row is not None else None
    return (account, row.share) if row is not None and account is not None else None


def claim_when_empty(tx: Transaction, account_id: UUID, *, enabled_by_default: bool) -> bool:
    """Claim today for an account without credits; False if already claimed or not enabled."""
    row = tx.first(
        text(
            f"""INSERT INTO credit_receives (account_id, day, how)
                SELECT a.id, {_TODAY}, 'empty' FROM accounts a
                WHERE a.id = :id AND coalesce(a.daily_receive, :enabled_by_default)
                ON CONFLICT DO NOTHING RETURNING account_id"""
        ),
        {"id": account_id, "enabled_by_default": enabled_by_default, **_day_zones()},
    )
    return row is not None


def record_result(
    tx: Transaction, account_id: UUID, *, gained: int | None, error_code: str | None = None, manual: bool = False
) -> None:
    """Record the result of a claim. `manual` = requested by a caller (`/token/receive`), possibly repeatedly.

    `gained` None = upstream refused or did not respond.
    """
    gained = clamp_known(gained)
    if manual:
        tx.run(
            text(
                f"""INSERT INTO credit_receives AS r (account_id, day, how, gained, error_code)
                    SELECT a.id, {_TODAY}, 'asked', CAST(:gained AS integer), :error FROM accounts a WHERE a.id = :id
                    ON CONFLICT (account_id, day) DO UPDATE SET error_code = excluded.error_code,
                        gained = CASE WHEN excluded.gained IS NULL THEN r.gained
                                      ELSE least(coalesce(r.gained, 0)::bigint + excluded.gained, {MAX_INTEGER}) END"""
            ),
            {"id": account_id, "gained": gained, "error": error_code, **_day_zones()},
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
    """Release the claim of today, because the call was certainly not sent."""
    tx.run(
        text(
            """DELETE FROM credit_receives WHERE account_id = :id AND gained IS NULL AND error_code IS NULL
               AND day = (SELECT max(day) FROM credit_receives WHERE account_id = :id)"""
        ),
        {"id": account_id},
    )


def delete_old(tx: Transaction, *, days: int) -> int:
    """Delete claims older than `days`; return how many."""
    statement = text("DELETE FROM credit_receives WHERE at < clock_timestamp() - make_interval(days => :days)")
    return int(tx.run(statement, {"days": days}).rowcount)
