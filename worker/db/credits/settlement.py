"""Settlement: read the actual cost of jobs from upstream's credit history and learn prices from it.

Until then an accepted job counts with its expected price (`jobs.charged`, `settled_at` NULL).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.catalog.models import get_catalog
from worker.core.catalog.pricing import shape_of
from worker.db.accounts import accounts
from worker.db.accounts.accounts import AccountRow
from worker.db.accounts.available_credits import MAX_READING_AGE_SECONDS, credits_left
from worker.db.accounts.eligibility import is_open, may_use
from worker.db.accounts.owner_shares import NOTHING_TAKEN, is_free, share_of, share_values, turn_of
from worker.db.accounts.queue_lines import line_heads
from worker.db.credits import learned_prices
from worker.db.credits.learned_prices import PLACE, ObservedPrice
from worker.db.engine import Transaction

# Minimum interval between two reads of an account, and the longer one after a read without entries of our jobs.
RETRY_SECONDS = 600
NO_ENTRIES_RETRY_SECONDS = 3600
# Upstream's history lags: a job that has just ended may not be in it yet.
LAG_SECONDS = 20
# A failed job may still be refunded for this long. A job that is absent after this long was not charged.
FAILED_SECONDS = 600
ABSENT_SECONDS = 1800
# Tolerated clock difference to upstream.
_CLOCK_SECONDS = 300
# Jobs not in the history after this many days will not appear.
DAYS = 2

# `now()`, because an index condition must not change within the statement.
_UNSETTLED = f"""u.account_id = a.id AND u.submitted_at > now() - interval '{DAYS} days'
    AND u.settled_at IS NULL AND u.finished_at < clock_timestamp() - make_interval(secs => :lag)"""
# A queued job waits for credits of this account, and the last reading is old.
_BLOCKS_A_JOB = f"""a.credits_at < clock_timestamp() - interval '{MAX_READING_AGE_SECONDS} seconds' AND EXISTS (
    SELECT 1 FROM (SELECT {credits_left("a")} AS left OFFSET 0) c CROSS JOIN lines w WHERE w.price > c.left
      AND {may_use("a", "w")} AND NOT (a.id = ANY(w.avoid_accounts)))"""

_CLAIM = text(
    f"""/* claim_ledger */
    WITH RECURSIVE {line_heads("lines", "ARRAY['image', 'video']")}
    UPDATE accounts SET ledger_due_at = clock_timestamp() + make_interval(secs => :again)
    WHERE id = (
        SELECT a.id FROM accounts a
        WHERE a.state = 'ok' AND a.provider = ANY(:providers) AND {is_open("a")}
          AND (a.ledger_due_at IS NULL OR a.ledger_due_at <= clock_timestamp())
          AND (a.rest_until IS NULL OR a.rest_until <= clock_timestamp() OR a.rest_code = 'insufficient_quota')
          AND (EXISTS (SELECT 1 FROM jobs u WHERE u.kind <> 'chat' AND {_UNSETTLED}) OR ({_BLOCKS_A_JOB}))
          AND {is_free("a")}
        ORDER BY {turn_of("a")}, a.ledger_due_at NULLS FIRST LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING id, {share_of("accounts")} AS share"""
)


def claim_account(
    tx: Transaction,
    *,
    providers: Sequence[str],
    busy: Sequence[str] = (),
    taken: Mapping[str, int] = NOTHING_TAKEN,
) -> tuple[AccountRow, str] | None:
    """Claim one account of these providers with unsettled jobs, or whose old reading keeps a job waiting.

    Return it and its share, which is not among the `busy` ones; shares of which fewer were `taken` come first.
    """
    values = {"again": RETRY_SECONDS, "lag": LAG_SECONDS, "providers": list(providers)}
    row = tx.first(_CLAIM, {**values, **share_values(busy, taken)})
    account = accounts.get_account(tx, row.id) if row is not None else None
    return (account, row.share) if row is not None and account is not None else None


def oldest_unsettled(tx: Transaction, account_id: UUID) -> datetime | None:
    """Return when upstream accepted the oldest unsettled job; None = there is none."""
    row = tx.first(
        text(
            f"""SELECT min(u.submitted_at) AS at FROM jobs u JOIN accounts a ON a.id = u.account_id
                WHERE u.kind <> 'chat' AND {_UNSETTLED} AND a.id = :id"""
        ),
        {"id": account_id, "lag": LAG_SECONDS},
    )
    return row.at if row is not None else None


def postpone(tx: Transaction, account_id: UUID) -> None:
    """Delay the next read: the history had no entries of our jobs."""
    tx.run(
        text("""UPDATE accounts SET ledger_due_at = clock_timestamp() + make_interval(secs => :secs) WHERE id = :id"""),
        {"id": account_id, "secs": NO_ENTRIES_RETRY_SECONDS},
    )


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Net credits charged for one submit key according to the history."""

    submit_key: UUID
    credits: int
    returned: bool  # partly refunded: then it does not show the price
    at: datetime


# A running job is not settled, because it may still fail and be refunded.
_SETTLE = text(
    """/* settle_charges */
    UPDATE jobs j SET charged = e.credits,
        settled_at = CASE WHEN j.finished_at IS NOT NULL AND (j.state = 'succeeded' OR e.credits = 0
            OR j.finished_at < clock_timestamp() - make_interval(secs => :failed)) THEN clock_timestamp() END
    FROM unnest(CAST(:keys AS uuid[]), CAST(:credits AS integer[])) AS e(key, credits)
    WHERE j.submit_key = e.key AND j.account_id = :id AND j.submitted_at IS NOT NULL AND j.settled_at IS NULL
    RETURNING j.id, j.submit_key, j.kind, j.model, j.params, j.charged, j.settled_at"""
)
# A job that is absent from a complete history with other jobs of ours was not charged.
_SETTLE_ABSENT = text(
    """/* settle_absent */
    UPDATE jobs SET charged = 0, settled_at = clock_timestamp()
    WHERE account_id = :id AND settled_at IS NULL AND kind <> 'chat' AND NOT (submit_key = ANY(:keys))
      AND submitted_at > CAST(:since AS timestamptz) + make_interval(secs => :clock)
      AND finished_at < clock_timestamp() - make_interval(secs => :absent)
    RETURNING id"""
)
_OURS = text("SELECT 1 FROM jobs WHERE account_id = :id AND submit_key = ANY(:keys) LIMIT 1")
_PLACE = text(f"SELECT {PLACE} AS place FROM accounts a WHERE a.id = :id")


def settle(
    tx: Transaction, account_id: UUID, entries: list[HistoryEntry], *, complete_since: datetime | None
) -> tuple[int, int]:
    """Apply the history to jobs and learned prices. Return the number of charged jobs and of jobs proved free.

    `complete_since` = the history has all entries since then; None = it may have gaps.
    """
    keys = [entry.submit_key for entry in entries]
    charged = tx.all(
        _SETTLE,
        {
            "id": account_id,
            "keys": keys,
            "credits": [entry.credits for entry in entries],
            "failed": FAILED_SECONDS,
        },
    )
    _learn(tx, account_id, charged, {entry.submit_key: entry for entry in entries})
    if complete_since is None or tx.first(_OURS, {"id": account_id, "keys": keys}) is None:
        return len(charged), 0
    values = {
        "id": account_id,
        "keys": keys,
        "since": complete_since,
        "clock": _CLOCK_SECONDS,
        "absent": ABSENT_SECONDS,
    }
    return len(charged), len(tx.all(_SETTLE_ABSENT, values))


def _learn(tx: Transaction, account_id: UUID, charged: list[Row[Any]], entries: dict[UUID, HistoryEntry]) -> None:
    place = tx.first(_PLACE, {"id": account_id})
    observed = []
    for row in charged:
        entry = entries[row.submit_key]
        shape = shape_of(row.kind, row.model, row.params, get_catalog())
        if place is not None and shape is not None and entry.credits > 0 and not entry.returned:
            observed.append(ObservedPrice(place.place, row.kind, row.model, shape, entry.credits, entry.at, "history"))
    learned_prices.store_prices(tx, observed)
