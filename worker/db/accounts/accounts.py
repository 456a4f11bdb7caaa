"""Upstream accounts: rows, limits, cooldown and submit pace. Jobs in flight are counted, never stored."""

import json
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text

from worker.core.catalog.provider_data import all_providers, first_provider
from worker.core.ids import new_id
from worker.core.settings import get_settings
from worker.db.accounts import limit_groups
from worker.db.accounts.concurrency import slots_of
from worker.db.accounts.eligibility import is_open, under_cap
from worker.db.accounts.queue_lines import USE_QUEUE_ORDER
from worker.db.engine import Transaction


@dataclass(frozen=True, slots=True)
class AccountRow:
    """An account as tasks use it. `secret` is encrypted; a task decrypts it just before an upstream call."""

    id: UUID
    label: str
    region: str
    secret: str = field(repr=False)
    pool: bool
    slots: dict[str, int]  # maximum jobs in flight by kind; 0 while that kind is in cooldown
    submits_per_minute: float
    cluster: dict[str, str] | None
    cluster_age_seconds: float | None
    lookup_context: str  # encryption context of the secret
    proxy: str | None = field(default=None, repr=False)  # encrypted
    user_id: UUID | None = None  # owner of a private account
    groups: tuple[str, ...] = ()  # user groups that may use a platform account; empty = all
    capped: bool = False
    provider: str = field(default_factory=first_provider)
    limit_group: str | None = None  # accounts of one paying customer share their limits
    currency: str | None = None  # of its prices; None = upstream's own credits
    model_ids: dict[str, str] = field(default_factory=dict)  # our model -> upstream's id
    model_rests: dict[str, dict[str, Any]] = field(default_factory=dict)  # see `accounts.model_rests`
    facts: dict[str, Any] = field(default_factory=dict)  # what its provider learned about it
    prices: dict[str, Any] = field(default_factory=dict)  # its own ones, see `worker.core.catalog.money`
    members: tuple[UUID, ...] = ()  # the accounts of its limit group, when they were locked for a claim
    pace_seconds: float = 0.0  # until the pace allows the next submit, when it was locked for a claim

    @property
    def proxy_context(self) -> str:
        """Encryption context of the proxy."""
        return proxy_context(self.lookup_context)


@dataclass(frozen=True, slots=True)
class PresentedToken:
    """A session id or key from a request: the hash to look up its row, and the encrypted secret for a new row.

    `proxy_hash` detects a changed proxy. None = the token names no proxy, so the row keeps its own; "" = use no proxy.
    """

    lookup_hash: str
    region: str
    label: str
    secret: str = field(repr=False)
    proxy: str | None = field(default=None, repr=False)
    proxy_hash: str | None = None
    proxy_place: str | None = None  # host and port, for display
    provider: str = field(default_factory=first_provider)
    currency: str | None = None  # in which accounts of its region pay


# How the labels of the accounts of a new platform begin. They are checked once used: a check would start the sandbox.
DEMO_LABEL = "sandbox demo"


def secret_context(lookup_hash: str) -> str:
    """Encryption context of a session: the ciphertext cannot be decrypted in another row."""
    return f"account:{lookup_hash}"


def proxy_context(context: str) -> str:
    """Encryption context of the proxy, derived from the context of the session."""
    return f"{context}:proxy"


COLUMNS = """id, label, provider, region, limit_group, currency, model_ids, model_rests, provider_facts, prices,
              secret, proxy, pool, lookup_hash, cluster, max_images, max_videos,
              submits_per_minute, user_id, groups, max_jobs_per_day, kind_rests,
              extract(epoch FROM clock_timestamp() - cluster_at) AS cluster_age_seconds,
              extract(epoch FROM next_submit_at - clock_timestamp()) AS next_submit_in,
              extract(epoch FROM clock_timestamp()) AS clock"""


def account_of(row: Any) -> AccountRow:
    """Return the account of a row with `COLUMNS`."""
    settings = get_settings()
    return AccountRow(
        id=row.id,
        label=row.label,
        region=row.region,
        provider=row.provider,
        limit_group=row.limit_group,
        currency=row.currency,
        model_ids=row.model_ids,
        model_rests=row.model_rests,
        facts=row.provider_facts,
        prices=row.prices,
        secret=row.secret,
        pool=row.pool,
        slots=slots_of(row),
        submits_per_minute=limit_groups.pace_of(
            row.provider_facts, row.submits_per_minute or settings.account_submits_per_minute, float(row.clock)
        ),
        cluster=row.cluster,
        cluster_age_seconds=float(row.cluster_age_seconds) if row.cluster_age_seconds is not None else None,
        lookup_context=secret_context(row.lookup_hash),
        proxy=row.proxy,
        user_id=row.user_id,
        groups=tuple(row.groups),
        capped=row.max_jobs_per_day is not None,
        pace_seconds=max(float(row.next_submit_in), 0.0),
    )


_READY = f"""id = :id AND state = 'ok' AND (rest_until IS NULL OR rest_until <= clock_timestamp())
          AND {is_open("accounts")}"""


def _lock_ready_statement(skip: str) -> TextClause:
    """Return the statement that locks an account for a claim, unless it has a limit group, whose rows have an order."""
    return text(
        f"""/* lock_ready */
        SELECT * FROM (SELECT {COLUMNS}, {USE_QUEUE_ORDER} FROM accounts WHERE limit_group IS NULL AND {_READY}
            FOR NO KEY UPDATE {skip}) alone
        UNION ALL SELECT {COLUMNS}, NULL, NULL FROM accounts WHERE id = :id AND limit_group IS NOT NULL"""
    )


_LOCK_READY, _LOCK_READY_NOW = _lock_ready_statement(""), _lock_ready_statement("SKIP LOCKED")
# After the lock of its group.
_GET_READY = text(f"SELECT {COLUMNS}, {USE_QUEUE_ORDER} FROM accounts WHERE {_READY}")
# A separate statement after the lock: the locking statement would count in an old snapshot.
_UNDER_CAP = text(f"""/* under_cap */ SELECT 1 FROM accounts a WHERE a.id = :id AND {under_cap("a")}""")
_GET = text(f"SELECT {COLUMNS} FROM accounts WHERE id = :id")


def lock_ready(tx: Transaction, account_id: UUID, *, waits: bool = True) -> AccountRow | None:
    """Lock the account for a claim. None if it is in cooldown, disabled, or its hours or daily cap forbid a job.

    `pace_seconds` of the account says how long its pace forbids the next submit. Waits for a claim in progress:
    skipping the row would lose wake-ups of a busy account until the next tick. With `waits` False, also None if
    another claim holds the row.
    """
    row, members = tx.first(_LOCK_READY if waits else _LOCK_READY_NOW, {"id": account_id}), list[UUID]()
    if row is not None and row.limit_group is not None:
        members = limit_groups.lock(tx, account_id, row.limit_group, waits=waits)
        row = tx.first(_GET_READY, {"id": account_id}) if members else None
    account = replace(account_of(row), members=tuple(members)) if row is not None else None
    if account is not None and account.capped and tx.first(_UNDER_CAP, {"id": account_id}) is None:
        return None
    return account


def get_account(tx: Transaction, account_id: UUID) -> AccountRow | None:
    """Return one account, or None."""
    row = tx.first(_GET, {"id": account_id})
    return account_of(row) if row is not None else None


def find_by_lookup_hash(tx: Transaction, lookup_hash: str) -> AccountRow | None:
    """Return the account of a session id, or None."""
    row = tx.first(text(f"SELECT {COLUMNS} FROM accounts WHERE lookup_hash = :h"), {"h": lookup_hash})
    return account_of(row) if row is not None else None


def any_of_other_provider(tx: Transaction, provider: str) -> bool:
    """Return whether there are accounts of other providers than this one."""
    return tx.first(text("SELECT 1 FROM accounts WHERE provider <> :name LIMIT 1"), {"name": provider}) is not None


def any_has_owner(tx: Transaction, account_ids: list[UUID]) -> bool:
    """Return whether one of the accounts belongs to the platform or a user, who chose its label."""
    owned = text("SELECT 1 FROM accounts WHERE id = ANY(:ids) AND (pool OR user_id IS NOT NULL) LIMIT 1")
    return tx.first(owned, {"ids": account_ids}) is not None


def find_tokens(tx: Transaction, hashes: list[str]) -> dict[str, UUID]:
    """Return the account ids of the session ids that have a row, by lookup hash."""
    rows = tx.all(text("SELECT id, lookup_hash FROM accounts WHERE lookup_hash = ANY(:h)"), {"h": hashes})
    return {row.lookup_hash: row.id for row in rows}


def lock_tokens(tx: Transaction, hashes: list[str]) -> dict[str, UUID]:
    """Like `find_tokens`, and lock rows that the cleanup might delete until the commit of the new job.

    Rows in recent use are not locked, because a lock writes to them.
    """
    rows = tx.all(
        text(
            """SELECT id, lookup_hash, greatest(created_at, last_submit_at) < clock_timestamp() - interval '23 hours'
                      AS idle FROM accounts WHERE lookup_hash = ANY(:h)"""
        ),
        {"h": hashes},
    )
    idle = sorted(row.lookup_hash for row in rows if row.idle)
    found = {row.lookup_hash: row.id for row in rows if not row.idle}
    if idle:
        locking = text("SELECT id, lookup_hash FROM accounts WHERE lookup_hash = ANY(:h) ORDER BY id FOR KEY SHARE")
        found |= {row.lookup_hash: row.id for row in tx.all(locking, {"h": idle})}
    return found


def ensure_tokens(tx: Transaction, tokens: list[PresentedToken]) -> list[UUID]:
    """Return the account ids of the session ids, in order. Insert missing rows and update changed proxies."""
    hashes = [token.lookup_hash for token in tokens]
    rows = tx.all(text("SELECT id, lookup_hash, proxy_hash FROM accounts WHERE lookup_hash = ANY(:h)"), {"h": hashes})
    known = {row.lookup_hash: row.id for row in rows}
    proxy_hashes = {row.lookup_hash: row.proxy_hash or "" for row in rows}
    for token in tokens:
        if token.lookup_hash not in known:
            known[token.lookup_hash] = add_account(tx, token, pool=False)
        elif token.proxy_hash not in {None, proxy_hashes[token.lookup_hash]}:
            # Only if the proxy changed: every claim locks the row of a busy account.
            tx.run(
                _SET_PROXY,
                {"id": known[token.lookup_hash], "proxy": token.proxy, "hash": token.proxy_hash}
                | {"place": token.proxy_place},
            )
    return [known[token.lookup_hash] for token in tokens]


# The newest proxy also applies to running jobs. A cooldown caused by the old proxy ends.
_SET_PROXY = text(
    """UPDATE accounts SET proxy = :proxy, proxy_hash = :hash, proxy_place = :place,
           rest_until = CASE WHEN rest_code = 'proxy_unreachable' THEN NULL ELSE rest_until END
       WHERE id = :id"""
)


def new_limits(provider: str) -> dict[str, Any]:
    """Return the limits of a new account, by column; None = those of the settings."""
    limits = all_providers()[provider].tables.get("limits", {})
    return {name: limits.get(name) for name in ("max_images", "max_videos", "submits_per_minute", "max_jobs_per_day")}


def add_account(tx: Transaction, token: PresentedToken, *, pool: bool) -> UUID:
    """Add an account and return its id. An existing account keeps its row, and a pool account stays in the pool.

    A new one has the limits that its provider's data names, else those of the settings.
    """
    limits = new_limits(token.provider)
    row = tx.first(
        text(
            """INSERT INTO accounts (id, label, provider, region, currency, lookup_hash, secret, proxy, proxy_hash,
                   proxy_place, pool, max_images, max_videos, submits_per_minute)
               VALUES (:id, :label, :provider, :region, :currency, :hash, :secret, :proxy, :proxy_hash, :proxy_place,
                   :pool, :max_images, :max_videos, :submits_per_minute)
               ON CONFLICT (lookup_hash) DO UPDATE SET pool = accounts.pool OR excluded.pool,
                   turns = CASE WHEN excluded.pool AND NOT accounts.pool THEN '{}' ELSE accounts.turns END,
                   proxy = CASE WHEN excluded.proxy_hash IS NULL THEN accounts.proxy ELSE excluded.proxy END,
                   proxy_place = CASE WHEN excluded.proxy_hash IS NULL THEN accounts.proxy_place
                                      ELSE excluded.proxy_place END,
                   proxy_hash = coalesce(excluded.proxy_hash, accounts.proxy_hash)
               RETURNING id"""
        ),
        {
            "id": new_id(),
            "label": token.label,
            "provider": token.provider,
            "region": token.region,
            "currency": token.currency,
            "hash": token.lookup_hash,
            "secret": token.secret,
            "proxy": token.proxy,
            "proxy_hash": token.proxy_hash,
            "proxy_place": token.proxy_place,
            "pool": pool,
            **limits,
        },
    )
    if row is None:
        raise LookupError("account row neither inserted nor found")
    account_id: UUID = row.id
    return account_id


def store_cluster(tx: Transaction, account_id: UUID, cluster: dict[str, str] | None) -> None:
    """Store the detected cluster of an international session; None deletes it."""
    tx.run(
        text(
            """UPDATE accounts SET cluster = CAST(:cluster AS jsonb),
                   cluster_at = CASE WHEN CAST(:cluster AS jsonb) IS NULL THEN NULL ELSE clock_timestamp() END
               WHERE id = :id"""
        ),
        {"id": account_id, "cluster": json.dumps(cluster) if cluster is not None else None},
    )
