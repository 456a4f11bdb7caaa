"""Model lists of accounts, and the schedule of background account checks."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text

from worker.core.catalog.upstream_models import AccountGroup, ModelListing
from worker.db.accounts import accounts
from worker.db.accounts.accounts import DEMO_LABEL, AccountRow
from worker.db.accounts.eligibility import NO_NEEDS, is_open, may_use
from worker.db.accounts.health import keys_only
from worker.db.accounts.owner_shares import NOTHING_TAKEN, is_free, share_of, share_values, turn_of
from worker.db.engine import Transaction

# Delay before the next check after a failed one.
RETRY_SECONDS = 900
# Accounts unused for longer are not checked.
RECENT_DAYS = 7
# The newest lists of a large pool are sufficient.
_MOST_LISTINGS = 50

# Also accounts that cannot work now: they still are the caller's accounts of their provider.
_GROUPED = text(
    f"""/* grouped_accounts */
    SELECT provider, region, currency, coalesce(array_agg(id) FILTER (WHERE healthy), '{{}}') AS ids,
        array_agg(id) AS all_ids,
        jsonb_agg(DISTINCT model_rests) FILTER (WHERE working) AS rests
    FROM (SELECT a.*, a.state = 'ok' AS healthy,
            a.state = 'ok' AND (a.rest_until IS NULL OR a.rest_until <= clock_timestamp()) AS working
        FROM accounts a CROSS JOIN (SELECT CAST(:user_id AS uuid) AS user_id, '{{}}'::uuid[] AS account_ids,
            CAST(:choice AS text) AS account_choice, {NO_NEEDS}) w
        WHERE a.state <> 'retired' AND {may_use("a", "w")}) a
    GROUP BY provider, region, currency"""
)
_CLAIM = text(
    f"""/* claim_refresh */
    UPDATE accounts SET refresh_due_at = clock_timestamp() + make_interval(secs => :again)
    WHERE id = (
        SELECT id FROM accounts a
        WHERE ((a.state = 'ok' AND (a.rest_until IS NULL OR a.rest_until <= clock_timestamp()))
               OR a.state = 'needs_login' OR (a.state = 'blocked' AND {keys_only("a")})) AND {is_open("a")}
          AND NOT (a.region = 'sandbox' AND starts_with(a.label, '{DEMO_LABEL}') AND a.last_submit_at IS NULL)
          AND (a.refresh_due_at IS NULL OR a.refresh_due_at <= clock_timestamp())
          AND (a.pool OR a.user_id IS NOT NULL OR (a.last_submit_at > clock_timestamp() - make_interval(days => :days)
                          AND EXISTS (SELECT 1 FROM jobs j WHERE j.account_id = a.id AND j.submitted_at IS NOT NULL)))
          AND {is_free("a")}
        ORDER BY {turn_of("a")}, a.refresh_due_at NULLS FIRST LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING id, {share_of("accounts")} AS share,
        coalesce(models_at < clock_timestamp() - make_interval(secs => :max_age), true) AS models_due"""
)


def claim_account_check(
    tx: Transaction, *, models_max_age: float, busy: Sequence[str] = (), taken: Mapping[str, int] = NOTHING_TAKEN
) -> tuple[tuple[AccountRow, bool], str] | None:
    """Claim one account whose check is due. Return it, whether its model list is older than `models_max_age` seconds,
    and its share, which is not among the `busy` ones; shares of which fewer were `taken` come first.

    Includes registered accounts and accounts used recently, within their working hours. Without a recorded result the
    check is due again after `RETRY_SECONDS`.
    """
    values = {"again": RETRY_SECONDS, "days": RECENT_DAYS, "max_age": models_max_age, **share_values(busy, taken)}
    row = tx.first(_CLAIM, values)
    account = accounts.get_account(tx, row.id) if row is not None else None
    return ((account, bool(row.models_due)), row.share) if row is not None and account is not None else None


def record_account_check(tx: Transaction, account_id: UUID, *, code: str | None, next_in: float) -> None:
    """Record the end of an account check, with an error code or None; the next is due in `next_in` seconds."""
    tx.run(
        text(
            """UPDATE accounts SET checked_at = clock_timestamp(), check_code = :code,
                   refresh_due_at = clock_timestamp() + make_interval(secs => :next_in) WHERE id = :id"""
        ),
        {"id": account_id, "code": code, "next_in": next_in},
    )


def store_models(tx: Transaction, account_id: UUID, models: dict[str, Any]) -> None:
    """Store the model list of the account. A kind that upstream did not list this time keeps its last list."""
    tx.run(
        text(
            """UPDATE accounts SET models = coalesce(models, '{}'::jsonb) || CAST(:models AS jsonb),
                   models_at = clock_timestamp() WHERE id = :id"""
        ),
        {"id": account_id, "models": json.dumps({kind: rows for kind, rows in models.items() if rows})},
    )


def upstream_models(tx: Transaction, account_id: UUID) -> dict[str, Any] | None:
    """Return the model list of the account (see `worker.core.catalog.upstream_models`); None = not known yet."""
    row = tx.first(text("SELECT models FROM accounts WHERE id = :id"), {"id": account_id})
    return row.models if row is not None else None


def listings(tx: Transaction, hashes: list[str], *, user_id: UUID | None, choice: str = "any") -> list[ModelListing]:
    """Return the lists of the accounts of these session ids; if empty, of all accounts of the user's jobs."""
    which = "a.lookup_hash = ANY(:hashes)" if hashes else f"a.state = 'ok' AND {may_use('a', 'w')}"
    rows = tx.all(
        text(
            f"""SELECT a.id, a.provider, a.region, a.models FROM accounts a CROSS JOIN (
                    SELECT CAST(:user_id AS uuid) AS user_id, '{{}}'::uuid[] AS account_ids,
                        CAST(:choice AS text) AS account_choice, {NO_NEEDS}) w
                WHERE {which} AND a.models IS NOT NULL ORDER BY a.models_at DESC LIMIT :most"""
        ),
        {"hashes": hashes, "user_id": user_id, "choice": choice, "most": _MOST_LISTINGS},
    )
    return [
        ModelListing(account_id=row.id, region=row.region, models=row.models, provider=row.provider) for row in rows
    ]


@dataclass(frozen=True, slots=True)
class GroupedAccounts:
    """Accounts of a caller that are alike, and the ids of the healthy ones."""

    group: AccountGroup
    ids: list[UUID]
    all_ids: list[UUID] = field(default_factory=list)  # also of those that cannot work now


def grouped_accounts(tx: Transaction, *, user_id: UUID | None, choice: str) -> list[GroupedAccounts]:
    """Return the accounts that a user's jobs may run on, by provider, region and currency."""
    now = time.time()
    return [
        GroupedAccounts(
            AccountGroup(row.provider, row.region, row.currency, row.rests is not None, _resting(row.rests, now)),
            list(row.ids),
            list(row.all_ids),
        )
        for row in tx.all(_GROUPED, {"user_id": user_id, "choice": choice})
    ]


def selected_accounts(tx: Transaction, ids: Iterable[UUID] | None, groups: Iterable[str] | None) -> set[UUID] | None:
    """Return the accounts that a key names, by id or by group; None if it names none of both, so all are allowed.

    An account of another user may be among them: `may_use` gives no access to it.
    """
    if ids is None and groups is None:
        return None
    rows = tx.all(
        text(
            """SELECT id FROM accounts WHERE state <> 'retired'
               AND (id = ANY(CAST(:ids AS uuid[])) OR groups && CAST(:groups AS text[]))"""
        ),
        {"ids": list(ids or ()), "groups": list(groups or ())},
    )
    return {row.id for row in rows}


def accounts_named(tx: Transaction, *, account_id: UUID | None, label: str, user_id: UUID, pool: bool) -> list[UUID]:
    """Return the accounts with this id or label: those of the user, and with `pool` those of the platform."""
    rows = tx.all(
        text(
            """SELECT id FROM accounts WHERE state <> 'retired' AND (id = CAST(:id AS uuid) OR label = :label)
               AND (user_id = :user_id OR (:pool AND pool)) ORDER BY id"""
        ),
        {"id": account_id, "label": label, "user_id": user_id, "pool": pool},
    )
    return [row.id for row in rows]


def _resting(rests: list[dict[str, Any]] | None, now: float) -> frozenset[str]:
    """Return the models that rest on every account of these."""
    of_accounts = [{model for model, rest in one.items() if float(rest["until"]) > now} for one in rests or ()]
    return frozenset(set.intersection(*of_accounts)) if of_accounts else frozenset()


def expired_sessions_to_recheck(tx: Transaction, *, within: float, limit: int) -> list[tuple[AccountRow, str]]:
    """Return accounts whose cooldown for an expired session ends within `within` seconds, and their shares, in turn."""
    rows = tx.all(
        text(
            f"""SELECT id, {share_of("a")} AS share FROM accounts a
               WHERE state = 'ok' AND rest_code = 'upstream_session_expired'
               AND rest_until BETWEEN clock_timestamp() AND clock_timestamp() + make_interval(secs => :within)
               AND (pool OR user_id IS NOT NULL OR last_submit_at > clock_timestamp() - interval '1 day')
               ORDER BY row_number() OVER (PARTITION BY {share_of("a")} ORDER BY rest_until), rest_until LIMIT :limit"""
        ),
        {"within": within, "limit": limit},
    )
    found = ((accounts.get_account(tx, row.id), row.share) for row in rows)
    return [(account, share) for account, share in found if account is not None]


def every_session_expired(tx: Transaction) -> int:
    """Return the number of real pool accounts if the sessions of all are expired, else 0.

    Sessions do not all expire at once: more likely upstream refuses this machine's exit address.
    """
    row = tx.first(
        text(
            f"""SELECT count(*) AS n, count(*) FILTER (
                   WHERE state = 'needs_login'
                       OR (rest_code = 'upstream_session_expired' AND rest_until > clock_timestamp())) AS expired
               FROM accounts WHERE pool AND state IN ('ok', 'needs_login') AND region <> 'sandbox'
                   AND NOT {keys_only("accounts")}"""
        )
    )
    return int(row.n) if row is not None and row.n > 1 and row.n == row.expired else 0
