"""Upstream accounts: rows, limits, rest, pace and when to poll. Jobs in flight are counted, never stored."""

import json
import random
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import text

from worker.core.ids import new_id
from worker.core.observability import metrics
from worker.core.settings import get_settings
from worker.db.accounts.concurrency import slots_of
from worker.db.accounts.eligibility import is_open, under_cap
from worker.db.engine import Transaction


@dataclass(frozen=True, slots=True)
class AccountRow:
    """An account as steps use it. `secret` is sealed; only a step opens it, just before a call."""

    id: UUID
    label: str
    region: str
    secret: str = field(repr=False)
    pool: bool
    slots: dict[str, int]  # jobs in flight it may have, by kind; 0 while that kind rests
    submits_per_minute: float
    cluster: dict[str, str] | None
    cluster_age_seconds: float | None
    lookup_context: str  # what the sealed secret is bound to
    proxy: str | None = field(default=None, repr=False)  # sealed as well
    user_id: UUID | None = None  # whose own it is
    groups: tuple[str, ...] = ()  # of the platform's: who may use it; none = all
    capped: bool = False

    @property
    def proxy_context(self) -> str:
        """What the sealed proxy is bound to."""
        return proxy_context(self.lookup_context)


@dataclass(frozen=True, slots=True)
class PresentedToken:
    """A session id somebody presented: how to find its row, and the sealed secret should it need one.

    `proxy_hash` tells whether the sealed `proxy` is another one than the row has: None = the token names none, then
    the row keeps the one it has; "" = it says to go direct.
    """

    lookup_hash: str
    region: str
    label: str
    secret: str = field(repr=False)
    proxy: str | None = field(default=None, repr=False)
    proxy_hash: str | None = None
    proxy_place: str | None = None  # host and port, to be shown


def secret_context(lookup_hash: str) -> str:
    """What an account's sealed session is bound to: copied to another row it does not open."""
    return f"account:{lookup_hash}"


def proxy_context(context: str) -> str:
    """What the sealed proxy of an account is bound to, given what its session is bound to."""
    return f"{context}:proxy"


_COLUMNS = """id, label, region, secret, proxy, pool, lookup_hash, cluster, max_images, max_videos, submits_per_minute,
              user_id, groups, max_jobs_per_day, kind_rests,
              extract(epoch FROM clock_timestamp() - cluster_at) AS cluster_age_seconds,
              extract(epoch FROM clock_timestamp()) AS clock"""


def _row(row: Any) -> AccountRow:
    settings = get_settings()
    return AccountRow(
        id=row.id,
        label=row.label,
        region=row.region,
        secret=row.secret,
        pool=row.pool,
        slots=slots_of(row),
        submits_per_minute=row.submits_per_minute or settings.account_submits_per_minute,
        cluster=row.cluster,
        cluster_age_seconds=float(row.cluster_age_seconds) if row.cluster_age_seconds is not None else None,
        lookup_context=secret_context(row.lookup_hash),
        proxy=row.proxy,
        user_id=row.user_id,
        groups=tuple(row.groups),
        capped=row.max_jobs_per_day is not None,
    )


_LOCK_READY = text(
    f"""/* lock_ready */ SELECT {_COLUMNS} FROM accounts
        WHERE id = :id AND state = 'ok' AND next_submit_at <= clock_timestamp()
          AND (rest_until IS NULL OR rest_until <= clock_timestamp()) AND {is_open("accounts")}
        FOR NO KEY UPDATE"""
)
_LOCK_READY_NOW = text(f"{_LOCK_READY.text} SKIP LOCKED")
# In a statement of its own, after the lock: in the locking one the count would be of an old snapshot.
_UNDER_CAP = text(f"""/* under_cap */ SELECT 1 FROM accounts a WHERE a.id = :id AND {under_cap("a")}""")
_GET = text(f"SELECT {_COLUMNS} FROM accounts WHERE id = :id")


def lock_ready(tx: Transaction, account_id: UUID, *, waits: bool = True) -> AccountRow | None:
    """Lock the account for a claim; None when it rests, is switched off, or its pace, hours or cap say no.

    Waits for a claim in progress: skipping the row would lose nudges of a busy single account until the next tick.
    Without `waits`, None too when another claim has it.
    """
    row = tx.first(_LOCK_READY if waits else _LOCK_READY_NOW, {"id": account_id})
    account = _row(row) if row is not None else None
    if account is not None and account.capped and tx.first(_UNDER_CAP, {"id": account_id}) is None:
        return None
    return account


def get_account(tx: Transaction, account_id: UUID) -> AccountRow | None:
    """One account."""
    row = tx.first(_GET, {"id": account_id})
    return _row(row) if row is not None else None


def find_by_lookup_hash(tx: Transaction, lookup_hash: str) -> AccountRow | None:
    """The account of a presented session id."""
    row = tx.first(text(f"SELECT {_COLUMNS} FROM accounts WHERE lookup_hash = :h"), {"h": lookup_hash})
    return _row(row) if row is not None else None


def find_tokens(tx: Transaction, hashes: list[str]) -> dict[str, UUID]:
    """Ids of the presented session ids that have a row, by lookup hash."""
    rows = tx.all(text("SELECT id, lookup_hash FROM accounts WHERE lookup_hash = ANY(:h)"), {"h": hashes})
    return {row.lookup_hash: row.id for row in rows}


def lock_tokens(tx: Transaction, hashes: list[str]) -> dict[str, UUID]:
    """Like `find_tokens`, for a job about to be made: a row that upkeep might remove is held until the commit.

    Rows in use are not touched, for locking writes to them.
    """
    rows = tx.all(
        text(
            """SELECT id, lookup_hash, greatest(created_at, last_submit_at) < clock_timestamp() - interval '23 hours'
                      AS idle FROM accounts WHERE lookup_hash = ANY(:h)"""
        ),
        {"h": hashes},
    )
    idle = sorted(row.lookup_hash for row in rows if row.idle)
    held = {row.lookup_hash: row.id for row in rows if not row.idle}
    if idle:
        locking = text("SELECT id, lookup_hash FROM accounts WHERE lookup_hash = ANY(:h) ORDER BY id FOR KEY SHARE")
        held |= {row.lookup_hash: row.id for row in tx.all(locking, {"h": idle})}
    return held


def ensure_tokens(tx: Transaction, tokens: list[PresentedToken]) -> list[UUID]:
    """Account ids for presented session ids, in their order; missing rows are made (with the job that needs them),
    and known ones take the proxy that is presented now.
    """
    hashes = [token.lookup_hash for token in tokens]
    rows = tx.all(text("SELECT id, lookup_hash, proxy_hash FROM accounts WHERE lookup_hash = ANY(:h)"), {"h": hashes})
    known = {row.lookup_hash: row.id for row in rows}
    through = {row.lookup_hash: row.proxy_hash or "" for row in rows}
    for token in tokens:
        if token.lookup_hash not in known:
            known[token.lookup_hash] = add_account(tx, token, pool=False)
        elif token.proxy_hash not in {None, through[token.lookup_hash]}:
            # Only when it is another one: a busy account's row is locked by every claim.
            tx.run(
                _GO_THROUGH,
                {"id": known[token.lookup_hash], "proxy": token.proxy, "hash": token.proxy_hash}
                | {"place": token.proxy_place},
            )
    return [known[token.lookup_hash] for token in tokens]


# The newest proxy counts, also for what is under way. A rest that the old one caused is over.
_GO_THROUGH = text(
    """UPDATE accounts SET proxy = :proxy, proxy_hash = :hash, proxy_place = :place,
           rest_until = CASE WHEN rest_code = 'proxy_unreachable' THEN NULL ELSE rest_until END
       WHERE id = :id"""
)


def add_account(tx: Transaction, token: PresentedToken, *, pool: bool) -> UUID:
    """Add an account; one that is known already keeps its row (a pool account stays in the pool)."""
    row = tx.first(
        text(
            """INSERT INTO accounts (id, label, region, lookup_hash, secret, proxy, proxy_hash, proxy_place, pool)
               VALUES (:id, :label, :region, :hash, :secret, :proxy, :proxy_hash, :proxy_place, :pool)
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
            "region": token.region,
            "hash": token.lookup_hash,
            "secret": token.secret,
            "proxy": token.proxy,
            "proxy_hash": token.proxy_hash,
            "proxy_place": token.proxy_place,
            "pool": pool,
        },
    )
    if row is None:
        raise LookupError("account row neither inserted nor found")
    if pool and token.region != "sandbox":
        # Toy pictures must never mix with real ones: the demo account leaves the pool when a real one joins it.
        tx.run(text("UPDATE accounts SET pool = false WHERE pool AND region = 'sandbox'"))
    account_id: UUID = row.id
    return account_id


def store_cluster(tx: Transaction, account_id: UUID, cluster: dict[str, str] | None) -> None:
    """Remember where an international session lives; None forgets it."""
    tx.run(
        text(
            """UPDATE accounts SET cluster = CAST(:cluster AS jsonb),
                   cluster_at = CASE WHEN CAST(:cluster AS jsonb) IS NULL THEN NULL ELSE clock_timestamp() END
               WHERE id = :id"""
        ),
        {"id": account_id, "cluster": json.dumps(cluster) if cluster is not None else None},
    )


def schedule_poll(tx: Transaction, account_id: UUID, *, seconds: float = 0.0) -> bool:
    """Make the account due for polling within `seconds`, not later than it already is; True when it is due now.

    Never sooner than one interval after its last poll (I6). Writes only when that changes something: a busy account's
    row is locked by every claim.
    """
    row = tx.first(
        text(
            """UPDATE accounts SET poll_due_at = greatest(
                   clock_timestamp() + make_interval(secs => :seconds), polled_at + make_interval(secs => :interval))
               WHERE id = :id AND coalesce(poll_due_at > greatest(clock_timestamp() + make_interval(secs => :seconds),
                   polled_at + make_interval(secs => :interval)), true)
               RETURNING poll_due_at <= clock_timestamp() AS due"""
        ),
        {"id": account_id, "seconds": max(seconds, 0.0), "interval": get_settings().poll_min_seconds},
    )
    return row is not None and bool(row.due)


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job that upstream works on, or may: what the poll needs to judge its record."""

    id: UUID
    attempt: int
    state: str
    submit_key: UUID
    attempts_left: bool
    group_id: UUID
    event_seq: int
    overdue_unclear: bool  # submitting, and past the time until which an unknown key may still turn up
    cancel_requested: bool
    ready_items: int
    queue_position: int | None
    progress: int
    absent: bool
    submitted_at: datetime | None
    origin: dict[str, Any] | None


# One poll per account and interval, whoever asks (I6): moving `poll_due_at` on is the claim. The interval is 5 % of the
# age of the youngest running job, +-10 % but never below the least, so that a ten-minute video is not asked for every
# second.
_CLAIM_POLL = text(
    """/* claim_poll */
    WITH old AS (SELECT id, poll_due_at FROM accounts WHERE id = :id AND poll_due_at <= clock_timestamp())
    UPDATE accounts SET polled_at = clock_timestamp(),
        poll_due_at = clock_timestamp() + make_interval(secs => greatest(:least, :jitter * greatest(:least, least(:most,
        coalesce((SELECT 0.05 * extract(epoch FROM clock_timestamp() - max(submitted_at)) FROM jobs
                  WHERE account_id = :id AND holds_slot AND state <> 'submitting' AND kind <> 'chat'), 0)))))
    FROM old WHERE accounts.id = old.id AND accounts.poll_due_at <= clock_timestamp()
    RETURNING extract(epoch FROM accounts.poll_due_at - clock_timestamp()) AS seconds,
        extract(epoch FROM clock_timestamp() - old.poll_due_at) AS late"""
)

_OPEN_JOBS = text(
    """/* open_jobs */
    SELECT id, attempt, state, submit_key, ready_items, queue_position, progress, submitted_at, group_id, event_seq,
        origin, attempt < max_attempts AS attempts_left, absent_since IS NOT NULL AS absent,
        cancel_requested_at IS NOT NULL AS cancel_requested,
        state = 'submitting' AND due_at <= clock_timestamp() AS overdue_unclear
    FROM jobs WHERE account_id = :id AND holds_slot AND kind <> 'chat'
        AND (state <> 'submitting' OR due_at <= clock_timestamp() + make_interval(secs => :grace))
    ORDER BY submitted_at NULLS FIRST, id LIMIT 5000"""
)
# With more open jobs than one call takes: this share of a call asks for the oldest, which are likeliest to be done; the
# rest for others by chance, so that jobs that hang at the front starve nobody.
_OLDEST_SHARE = 0.7


def claim_poll(tx: Transaction, account_id: UUID, *, jitter: float) -> float | None:
    """Take this interval's poll of the account; the seconds until the next one, None when it is not due now."""
    settings = get_settings()
    values = {"id": account_id, "jitter": jitter}
    row = tx.first(_CLAIM_POLL, {**values, "least": settings.poll_min_seconds, "most": settings.poll_max_seconds})
    if row is None:
        return None
    tx.on_commit(partial(metrics.observe, "dreamery_poll_delay_seconds", max(float(row.late), 0.0)))
    return float(row.seconds)


def open_jobs(tx: Transaction, account_id: UUID) -> list[OpenJob]:
    """The jobs to ask upstream for, at most one call's worth.

    A submitting job is among them once its call is surely over: asking earlier could take a request still on its way
    for one that was lost.
    """
    settings = get_settings()
    values = {"id": account_id, "grace": settings.unclear_grace_seconds}
    found = [OpenJob(**row._mapping) for row in tx.all(_OPEN_JOBS, values)]  # noqa: SLF001
    if len(found) <= settings.poll_batch:
        return found
    oldest = int(settings.poll_batch * _OLDEST_SHARE)
    return found[:oldest] + random.sample(found[oldest:], settings.poll_batch - oldest)


def stop_polling(tx: Transaction, account_id: UUID) -> None:
    """Nothing is open on the account: no poll until a submit asks for one.

    Locked first: an UPDATE that waits for a claim in progress would judge NOT EXISTS by its old snapshot and switch off
    the polling of the job just claimed.
    """
    tx.run(text("SELECT 1 FROM accounts WHERE id = :id FOR NO KEY UPDATE"), {"id": account_id})
    tx.run(
        text(
            """UPDATE accounts SET poll_due_at = NULL
               WHERE id = :id AND NOT EXISTS (
                   SELECT 1 FROM jobs WHERE account_id = :id AND holds_slot AND kind <> 'chat')"""
        ),
        {"id": account_id},
    )
