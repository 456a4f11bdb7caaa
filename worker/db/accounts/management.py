"""Account management by administrators and owners. `accounts.py` has what jobs need."""

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.quotas import OWN_ACCOUNTS, UNLIMITED
from worker.core.security.session_tokens import SANDBOX
from worker.core.settings import get_settings
from worker.db.accounts import accounts, health
from worker.db.accounts.accounts import DEMO_LABEL, PresentedToken
from worker.db.accounts.available_credits import credits_left
from worker.db.accounts.eligibility import ANY_NEEDS, NEEDS, Needs, is_open, jobs_today, may_use, opens_at
from worker.db.engine import Transaction

# Limits of an account; None removes the own limit.
LIMITS = ("max_images", "max_videos", "submits_per_minute", "max_jobs_per_day")
# Floor, ceiling and eagerness of the polling of an account.
POLLING = ("poll_min_seconds", "poll_max_seconds", "poll_eagerness")
# Columns where NULL means the platform's default, or no limit.
NULLABLE = (*LIMITS, *POLLING, "daily_receive")
HOURS = ("hours_days", "hours_from", "hours_to", "hours_zone")
# Columns that depend on the provider.
BY_PROVIDER = ("limit_group", "model_ids", "prices")
_JSON = ("model_ids", "prices")
_COLUMNS = ("label", "groups", *NULLABLE, *HOURS, *BY_PROVIDER)
_GROUP_SEPARATOR = "/"
_DETAIL_COLUMNS = f"""a.id, a.label, a.provider, a.region, a.currency, a.limit_group, a.model_ids, a.model_rests,
    a.provider_facts, a.prices, a.lookup_hash, a.pool, a.user_id, a.groups, a.state, a.state_code,
    a.state_at, a.rest_until, a.rest_code, a.max_images, a.max_videos, a.submits_per_minute, a.max_jobs_per_day,
    a.poll_min_seconds, a.poll_max_seconds, a.poll_eagerness,
    a.hours_days, a.hours_from, a.hours_to, a.hours_zone, a.credits, a.credits_at, {credits_left("a")} AS credits_left,
    a.daily_receive, a.cluster, a.models, a.checked_at, a.check_code,
    a.refresh_due_at, a.last_submit_at, a.created_at, a.proxy IS NOT NULL AS has_proxy, a.proxy_place,
    (SELECT u.name FROM users u WHERE u.id = a.user_id) AS user_name, {is_open("a")} AS open_now,
    {opens_at("a")} AS opens_at, {jobs_today("a")} AS jobs_today,
    (SELECT count(*) FROM jobs j WHERE j.account_id = a.id AND j.holds_slot) AS in_flight"""
# The columns that `may_use` reads from a job, for a job that a caller could start.
_REQUEST = f"""(SELECT CAST(:user_id AS uuid) AS user_id, '{{}}'::uuid[] AS account_ids,
    CAST(:choice AS text) AS account_choice, {NEEDS}) w"""


def list_accounts(
    tx: Transaction, *, user_id: UUID | None, registered_only: bool, after: UUID | None, limit: int
) -> list[Row[Any]]:
    """Return accounts, oldest first, without retired ones and without secrets. `user_id`: only accounts of that user;
    `registered_only`: without accounts that are only presented as session ids.
    """
    return tx.all(
        text(
            f"""SELECT {_DETAIL_COLUMNS} FROM accounts a
                WHERE (NOT :registered_only OR a.pool OR a.user_id IS NOT NULL) AND a.state <> 'retired'
                  AND (CAST(:user_id AS uuid) IS NULL OR a.user_id = :user_id)
                  AND (CAST(:after AS uuid) IS NULL OR a.id > :after)
                ORDER BY a.id LIMIT :limit"""
        ),
        {"user_id": user_id, "registered_only": registered_only, "after": after, "limit": limit},
    )


def get_account_details(tx: Transaction, account_id: UUID, *, lock: bool = False) -> Row[Any] | None:
    """Return one account, even a retired one. `lock` locks the row before it is changed."""
    if lock:
        tx.run(text("SELECT 1 FROM accounts WHERE id = :id FOR UPDATE"), {"id": account_id})
    return tx.first(text(f"SELECT {_DETAIL_COLUMNS} FROM accounts a WHERE a.id = :id"), {"id": account_id})


def get_accounts_details(tx: Transaction, account_ids: list[UUID]) -> dict[UUID, Row[Any]]:
    """Return these accounts, by id."""
    rows = tx.all(text(f"SELECT {_DETAIL_COLUMNS} FROM accounts a WHERE a.id = ANY(:ids)"), {"ids": account_ids})
    return {row.id: row for row in rows}


def register_account(
    tx: Transaction, token: PresentedToken, *, user_id: UUID | None, groups: list[str]
) -> tuple[UUID, str]:
    """Register the session id as an account of the user, or of the platform if None. Return its id and the outcome.

    Outcomes: `added`; `returned` (it was retired or only presented before, and keeps its history); `duplicate` (it is
    already registered, by any owner, and stays unchanged). Except for a duplicate, an account check is due at once.
    What another owner set is reset: the new one must not see the former label or proxy, nor have an administrator's
    limits. The proxy of an account without owner stays, as its session ids came with it.
    """
    known = bool(accounts.find_tokens(tx, [token.lookup_hash]))
    if not known:
        accounts.add_account(tx, token, pool=False)
    # Decided under the lock: of two concurrent registrations, the second finds a duplicate.
    row = tx.all(
        text(
            """SELECT id, state, pool, user_id, region = :sandbox AND starts_with(label, :demo) AS is_demo
               FROM accounts WHERE lookup_hash = :h FOR UPDATE"""
        ),
        {"h": token.lookup_hash, "sandbox": SANDBOX, "demo": DEMO_LABEL},
    )[0]
    account_id: UUID = row.id
    # No one has added the account that a new platform has: now someone does.
    added_by_no_one = row.is_demo and row.pool and user_id is None
    if row.state != "retired" and (row.pool or row.user_id is not None) and not added_by_no_one:
        return account_id, "duplicate"
    values: dict[str, Any] = {"id": account_id, "user_id": user_id, "pool": user_id is None, "groups": groups}
    values |= {"secret": token.secret, "proxy": token.proxy, "hash": token.proxy_hash, "place": token.proxy_place}
    values |= {"label": token.label, **accounts.new_limits(token.provider)}
    same = "user_id IS NOT DISTINCT FROM CAST(:user_id AS uuid)"
    keeps_proxy = f"({same} OR (user_id IS NULL AND state <> 'retired'))"
    tx.run(
        text(
            f"""UPDATE accounts SET user_id = :user_id, pool = :pool, groups = CAST(:groups AS text[]), state = 'ok',
                   state_code = NULL, state_at = clock_timestamp(), risk_refusals = 0,
                   login_refusals = {health.unproved("accounts")},
                   refresh_due_at = clock_timestamp(), secret = :secret, model_rests = '{{}}',
                   limit_group = CASE WHEN {same} THEN limit_group END,
                   model_ids = CASE WHEN {same} THEN model_ids ELSE '{{}}' END,
                   prices = CASE WHEN {same} THEN prices ELSE '{{}}' END,
                   turns = CASE WHEN :pool AND NOT pool THEN '{{}}' ELSE turns END,
                   label = CASE WHEN {same} THEN label ELSE :label END,
                   {", ".join(f"{name} = CASE WHEN {same} THEN {name} END" for name in (*POLLING, *HOURS))},
                   daily_receive = CASE WHEN {same} THEN daily_receive END,
                   {", ".join(f"{name} = CASE WHEN {same} THEN {name} ELSE :{name} END" for name in LIMITS)},
                   proxy = CASE WHEN CAST(:hash AS text) IS NULL AND {keeps_proxy} THEN proxy ELSE :proxy END,
                   proxy_place = CASE WHEN CAST(:hash AS text) IS NULL AND {keeps_proxy} THEN proxy_place
                                      ELSE :place END,
                   proxy_hash = CASE WHEN CAST(:hash AS text) IS NULL AND {keeps_proxy} THEN proxy_hash
                                     ELSE CAST(:hash AS text) END
               WHERE id = :id"""
        ),
        values,
    )
    return account_id, "returned" if known else "added"


def lock_own_accounts(tx: Transaction, user_id: UUID) -> int | None:
    """Let other additions to this user's accounts wait until the commit. Return how many it may have; None = any."""
    row = tx.first(text("SELECT limits FROM users WHERE id = :id FOR NO KEY UPDATE"), {"id": user_id})
    most = row.limits.get(OWN_ACCOUNTS) if row is not None else None
    if most == UNLIMITED:
        return None
    return get_settings().own_accounts_per_user if most is None else int(most)


def count_own_accounts(tx: Transaction, user_id: UUID) -> int:
    """Return how many accounts the user has, without retired ones."""
    counted = text("SELECT count(*) AS n FROM accounts WHERE user_id = :id AND state <> 'retired'")
    row = tx.first(counted, {"id": user_id})
    return int(row.n) if row is not None else 0


def remove_sandbox_accounts(tx: Transaction, joined: list[UUID]) -> list[UUID]:
    """Remove sandbox accounts from the pool when a real account joins, so that their results never mix. Return them.

    Sandbox accounts added in the same request stay.
    """
    rows = tx.all(
        text(
            """UPDATE accounts SET pool = false WHERE pool AND region = :sandbox AND NOT (id = ANY(:joined))
               AND EXISTS (SELECT 1 FROM accounts r WHERE r.id = ANY(:joined) AND r.pool AND r.region <> :sandbox)
               RETURNING id"""
        ),
        {"joined": joined, "sandbox": SANDBOX},
    )
    return [row.id for row in rows]


def return_sandbox_accounts(tx: Transaction, removed: list[UUID]) -> None:
    """Put sandbox accounts back into the pool, if no other account of the pool is recognised by its upstream."""
    tx.run(
        text(
            """UPDATE accounts SET pool = true WHERE id = ANY(:removed) AND user_id IS NULL AND state <> 'retired'
               AND NOT EXISTS (SELECT 1 FROM accounts r WHERE r.pool AND r.state NOT IN ('needs_login', 'retired'))"""
        ),
        {"removed": removed},
    )


def change_account(tx: Transaction, account_id: UUID, changes: dict[str, Any]) -> None:
    """Set label, groups, limits, polling, daily credits, what depends on its provider, or all four columns of the
    working hours.

    `changes` is by column.
    """
    known = [name for name in _COLUMNS if name in changes]
    if known:
        sets = ", ".join(f"{name} = {f'CAST(:{name} AS jsonb)' if name in _JSON else f':{name}'}" for name in known)
        values = {name: json.dumps(changes[name]) if name in _JSON else changes[name] for name in known}
        tx.run(text(f"UPDATE accounts SET {sets} WHERE id = :id"), {**values, "id": account_id})


def group_key(user_id: UUID | None, name: str) -> str:
    """Return the limit group of this name as the table has it: the groups of each owner are their own."""
    return name if user_id is None else f"{user_id.hex}{_GROUP_SEPARATOR}{name}"


def group_name(key: str | None) -> str | None:
    """Return the name of a limit group, as its owner gave it."""
    return None if key is None else key.rpartition(_GROUP_SEPARATOR)[2]


def reopen_models(tx: Transaction, account_id: UUID, models: list[str] | None) -> None:
    """End the rests of these models on the account, also of those that are closed; None = of all."""
    tx.run(
        text(
            """UPDATE accounts SET model_rests = CASE WHEN CAST(:models AS text[]) IS NULL THEN '{}'
                   ELSE model_rests - CAST(:models AS text[]) END WHERE id = :id"""
        ),
        {"id": account_id, "models": models},
    )


def set_proxy(tx: Transaction, account_id: UUID, *, proxy: str | None, proxy_hash: str, place: str | None) -> None:
    """Set the (encrypted) proxy of the account, or None. A cooldown caused by the old proxy ends."""
    tx.run(
        text(
            """UPDATE accounts SET proxy = :proxy, proxy_hash = :hash, proxy_place = :place,
                   rest_until = CASE WHEN rest_code = 'proxy_unreachable' THEN NULL ELSE rest_until END
               WHERE id = :id"""
        ),
        {"id": account_id, "proxy": proxy, "hash": proxy_hash, "place": place},
    )


def replace_session(tx: Transaction, account_id: UUID, token: PresentedToken) -> bool:
    """Replace the session; history, limits and jobs stay. Return False if another account has that session.

    Login problems of the old session are reset, and an account check is due at once.
    """
    taken = tx.first(
        text("SELECT 1 FROM accounts WHERE lookup_hash = :h AND id <> :id"), {"h": token.lookup_hash, "id": account_id}
    )
    if taken is not None:
        return False
    tx.run(
        text(
            f"""UPDATE accounts SET lookup_hash = :h, region = :region, currency = :currency, secret = :secret,
                   model_rests = '{{}}', proxy = :proxy,
                   proxy_hash = :proxy_hash, proxy_place = :place, cluster = NULL, cluster_at = NULL,
                   login_refusals = {health.unproved("accounts")}, refresh_due_at = clock_timestamp(),
                   rest_until = CASE WHEN rest_code = 'upstream_session_expired' THEN NULL ELSE rest_until END,
                   rest_code = CASE WHEN rest_code = 'upstream_session_expired' THEN NULL ELSE rest_code END,
                   state_code = CASE WHEN state = 'needs_login' THEN NULL ELSE state_code END,
                   state_at = CASE WHEN state = 'needs_login' THEN clock_timestamp() ELSE state_at END,
                   state = CASE WHEN state = 'needs_login' THEN 'ok' ELSE state END
               WHERE id = :id"""
        ),
        {
            "id": account_id,
            "h": token.lookup_hash,
            "region": token.region,
            "currency": token.currency,
            "secret": token.secret,
            "proxy": token.proxy,
            "proxy_hash": token.proxy_hash,
            "place": token.proxy_place,
        },
    )
    return True


def pause(tx: Transaction, account_id: UUID) -> None:
    """Pause the account: it takes no new jobs."""
    tx.run(
        text(
            """UPDATE accounts SET state = 'paused', state_code = NULL, state_at = clock_timestamp()
               WHERE id = :id AND state IN ('ok', 'needs_login', 'blocked')"""
        ),
        {"id": account_id},
    )


def resume(tx: Transaction, account_id: UUID) -> None:
    """Resume a paused or blocked account. In every state an account check is due at once; an account that needs a
    login keeps its state until then.
    """
    tx.run(
        text(
            """UPDATE accounts SET refresh_due_at = clock_timestamp(),
                   risk_refusals = 0, rest_until = CASE WHEN state = 'blocked' THEN NULL ELSE rest_until END,
                   rest_code = CASE WHEN state = 'blocked' THEN NULL ELSE rest_code END,
                   state_code = CASE WHEN state = 'needs_login' THEN state_code END,
                   state_at = CASE WHEN state IN ('paused', 'blocked') THEN clock_timestamp() ELSE state_at END,
                   state = CASE WHEN state IN ('paused', 'blocked') THEN 'ok' ELSE state END
               WHERE id = :id AND state IN ('ok', 'paused', 'blocked', 'needs_login')"""
        ),
        {"id": account_id},
    )


def schedule_check(tx: Transaction, account_id: UUID) -> None:
    """Make an account check due at once."""
    tx.run(text("UPDATE accounts SET refresh_due_at = clock_timestamp() WHERE id = :id"), {"id": account_id})


def retire(tx: Transaction, account_id: UUID) -> None:
    """Retire the account: it leaves the pool and takes no more jobs. Its row stays for the history."""
    tx.run(
        text(
            """UPDATE accounts SET state = 'retired', state_code = NULL, state_at = clock_timestamp(), pool = false,
                   refresh_due_at = NULL WHERE id = :id"""
        ),
        {"id": account_id},
    )


def end_cooldown(tx: Transaction, account_id: UUID) -> None:
    """End all cooldowns of the account and reset its failure score."""
    tx.run(
        text("UPDATE accounts SET rest_until = NULL, rest_code = NULL, kind_rests = '{}' WHERE id = :id"),
        {"id": account_id},
    )
    tx.run(text("UPDATE account_marks SET bad = 0 WHERE account_id = :id"), {"id": account_id})


def pool_is_empty(tx: Transaction) -> bool:
    """Return whether the platform has no account in any state."""
    return tx.first(text("SELECT 1 FROM accounts WHERE pool LIMIT 1")) is None


def unusable_reason(tx: Transaction, *, user_id: UUID | None, choice: str, needs: Needs = ANY_NEEDS) -> str:
    """Return the error code for a user without any healthy account."""
    rows = tx.all(
        text(
            f"""SELECT DISTINCT a.state FROM accounts a CROSS JOIN {_REQUEST}
                WHERE a.state IN ('needs_login', 'blocked') AND {may_use("a", "w")}"""
        ),
        {"user_id": user_id, "choice": choice, **needs.values()},
    )
    states = {row.state for row in rows}
    if "needs_login" in states:
        return "accounts_need_login"
    return "accounts_blocked" if states else "no_account_available"


@dataclass(frozen=True, slots=True)
class Available:
    """The accounts that a user's jobs may run on."""

    own: int
    platform: bool
    sandbox_only: bool  # there are some, and all belong to the sandbox


def available(tx: Transaction, *, user_id: UUID) -> Available:
    """Return what the user's jobs may run on, without accounts that upstream does not recognise."""
    row = tx.all(
        text(
            f"""SELECT count(*) FILTER (WHERE NOT a.pool) AS own, coalesce(bool_or(a.pool), false) AS platform,
                    coalesce(bool_and(a.region = :sandbox), false) AS sandbox_only
                FROM accounts a CROSS JOIN {_REQUEST}
                WHERE a.state NOT IN ('needs_login', 'retired') AND {may_use("a", "w")}"""
        ),
        {"user_id": user_id, "choice": "any", "sandbox": SANDBOX, **ANY_NEEDS.values()},
    )[0]
    return Available(row.own, row.platform, row.sandbox_only)


def is_known_time_zone(tx: Transaction, zone: str) -> bool:
    """Return whether the database knows the time zone, because it evaluates the working hours."""
    return tx.first(text("SELECT 1 FROM pg_timezone_names WHERE name = :zone"), {"zone": zone}) is not None
