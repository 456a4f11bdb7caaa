"""Polls of accounts: when the next one is due, the claim of a poll, and the jobs that it asks for.

One poll covers all open jobs of an account (I6). `poll_due_at` is the truth: messages and timers only wake workers.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import text

from worker.core.observability import metrics
from worker.core.settings import get_settings
from worker.db.accounts.accounts import COLUMNS, AccountRow, account_of
from worker.db.engine import Transaction

# An account whose last poll is at least this old is polled at once after a submit: upstream's checks of the prompt
# refuse within the first moments, and very short jobs have ended already.
FIRST_LOOK_SECONDS = 1.0

# The floor of an account (`poll_min_seconds`) is its own or that of the settings.
_FLOOR = "coalesce(poll_min_seconds, :floor)"
_SCHEDULE_POLLS = text(
    f"""/* schedule_polls */
    WITH due AS (
        SELECT id, greatest(clock_timestamp() + make_interval(secs => :seconds),
            polled_at + make_interval(secs => greatest({_FLOOR}, :interval))) AS at
        FROM accounts WHERE id = ANY(:ids))
    UPDATE accounts SET poll_due_at = due.at FROM due
    WHERE accounts.id = due.id AND coalesce(accounts.poll_due_at > due.at, true)
    RETURNING accounts.id, accounts.poll_due_at <= clock_timestamp() AS due"""
)


def schedule_polls(
    tx: Transaction, account_ids: Collection[UUID], *, seconds: float = 0.0, interval: float = 0.0
) -> list[UUID]:
    """Schedule a poll of each account within `seconds`, never later than scheduled. Return those that are due now.

    At least the account's floor, or a longer `interval`, lies between two polls (I6). A row is written only if the
    time changes, because every claim locks the row of a busy account.
    """
    floor = get_settings().poll_min_seconds
    values = {"ids": list(account_ids), "seconds": max(seconds, 0.0), "interval": interval, "floor": floor}
    return [row.id for row in tx.all(_SCHEDULE_POLLS, values) if row.due]


def schedule_poll(tx: Transaction, account_id: UUID, *, seconds: float = 0.0) -> bool:
    """Schedule a poll of one account; see `schedule_polls`. True if it is due now."""
    return bool(schedule_polls(tx, [account_id], seconds=seconds))


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job that upstream is working on, or may be: the data the poll needs to evaluate its record."""

    id: UUID
    attempt: int
    state: str
    kind: str
    model: str
    size: str  # what decides its duration, as in `durations.size_of`
    submit_key: UUID
    attempts_left: bool
    group_id: UUID
    event_seq: int
    overdue_unclear: bool  # submitting, and an unknown submit key can no longer appear upstream
    cancel_requested: bool
    ready_items: int
    queue_position: int | None
    progress: int
    absent: bool
    submitted_at: datetime | None
    age: float | None  # seconds since upstream accepted it
    origin: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class PollClaim:
    """A claimed poll: the account, its own limits (None = of the settings), and seconds since its last poll."""

    account: AccountRow
    floor: float | None
    ceiling: float | None
    eagerness: float | None
    since_last: float | None


# At most one poll per account and interval: moving `poll_due_at` forward is the claim. The end of the poll sets the
# real time of the next one.
_CLAIM_POLL = text(
    f"""/* claim_poll */
    WITH old AS (SELECT id, poll_due_at, polled_at FROM accounts WHERE id = :id AND poll_due_at <= clock_timestamp()),
    upd AS (
        UPDATE accounts SET polled_at = clock_timestamp(),
            poll_due_at = clock_timestamp() + make_interval(secs => :lost_after)
        FROM old WHERE accounts.id = old.id AND accounts.poll_due_at <= clock_timestamp()
        RETURNING accounts.*, old.poll_due_at AS was_due_at, old.polled_at AS was_polled_at)
    SELECT {COLUMNS}, poll_min_seconds, poll_max_seconds, poll_eagerness,
        extract(epoch FROM clock_timestamp() - was_due_at) AS late,
        extract(epoch FROM clock_timestamp() - was_polled_at) AS since_last FROM upd"""
)

_OPEN_JOBS = text(
    """/* open_jobs */
    SELECT id, attempt, state, kind, model, submit_key, ready_items, queue_position, progress, submitted_at, group_id,
        event_seq, origin, attempt < max_attempts AS attempts_left, absent_since IS NOT NULL AS absent,
        cancel_requested_at IS NOT NULL AS cancel_requested,
        concat_ws(' ', params #>> '{order,resolution}', params #>> '{order,seconds}') AS size,
        extract(epoch FROM clock_timestamp() - submitted_at)::float8 AS age,
        state = 'submitting' AND due_at <= clock_timestamp() AS overdue_unclear
    FROM jobs WHERE account_id = :id AND holds_slot AND kind <> 'chat'
        AND (state <> 'submitting' OR due_at <= clock_timestamp() + make_interval(secs => :grace))
    ORDER BY submitted_at NULLS FIRST, id LIMIT 5000"""
)


def claim_poll(tx: Transaction, account_id: UUID) -> PollClaim | None:
    """Claim the poll of this account; None if none is due. `set_next_poll` ends it."""
    settings = get_settings()
    lost_after = max(settings.call_timeout_seconds, settings.poll_max_seconds)
    row = tx.first(_CLAIM_POLL, {"id": account_id, "lost_after": lost_after})
    if row is None:
        return None
    tx.on_commit(partial(metrics.observe, "dreamery_poll_delay_seconds", max(float(row.late), 0.0)))
    return PollClaim(
        account=account_of(row),
        floor=row.poll_min_seconds,
        ceiling=row.poll_max_seconds,
        eagerness=row.poll_eagerness,
        since_last=None if row.since_last is None else max(float(row.since_last), 0.0),
    )


def open_jobs(tx: Transaction, account_id: UUID) -> list[OpenJob]:
    """Return the jobs that upstream has or may have, longest running first.

    A submitting job is included once its submit call has certainly ended: polling earlier could treat a request in
    flight as lost.
    """
    values = {"id": account_id, "grace": get_settings().unclear_grace_seconds}
    return [OpenJob(**row._mapping) for row in tx.all(_OPEN_JOBS, values)]  # noqa: SLF001


# With more open jobs than fit into one call, this share of the call polls the oldest jobs, which are most likely done.
# The rest is a random sample, so jobs that hang do not starve the others.
_OLDEST_SHARE = 0.7


def select_for_call(jobs: list[OpenJob]) -> list[OpenJob]:
    """Return at most as many jobs as fit into one call."""
    most = get_settings().poll_batch
    if len(jobs) <= most:
        return jobs
    oldest = int(most * _OLDEST_SHARE)
    return jobs[:oldest] + random.sample(jobs[oldest:], most - oldest)


_SET_NEXT_POLL = text(
    """/* set_next_poll */
    UPDATE accounts SET poll_due_at = least(poll_due_at, clock_timestamp() + make_interval(secs => :seconds))
    WHERE id = :id"""
)


def set_next_poll(tx: Transaction, account_id: UUID, *, seconds: float) -> None:
    """Set the time of the next poll, at the end of a claimed one. A submit meanwhile may have set an earlier one."""
    tx.run(_SET_NEXT_POLL, {"id": account_id, "seconds": seconds})


def stop_polling(tx: Transaction, account_id: UUID) -> None:
    """Stop polling the account if it has no open jobs; the next submit schedules a poll again.

    The row is locked first: an UPDATE that waits for a claim would evaluate NOT EXISTS in its old snapshot and stop
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
