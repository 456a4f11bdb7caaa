"""Polls of accounts: when the next one is due, the claim of a poll, and the jobs that it asks for.

One poll covers all open jobs of an account (I6). `poll_due_at` is the truth: messages and timers only wake workers.
"""

import json
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.observability import metrics
from worker.core.settings import get_settings
from worker.db.accounts.accounts import COLUMNS, AccountRow, account_of
from worker.db.engine import Transaction

# The floor of an account (`poll_min_seconds`) is its own or that of the settings.
_FLOOR = "coalesce(poll_min_seconds, :floor)"
# A job alone on its account that may have ended already is looked at without regard to the floor: that is one call
# per job at most.
_SCHEDULE_POLLS = text(
    f"""/* schedule_polls */
    WITH looks AS (
        SELECT * FROM jsonb_to_recordset(CAST(:looks AS jsonb)) AS l(id uuid, seconds float8, at_once boolean)),
    due AS (
        SELECT a.id, CASE WHEN l.at_once AND (SELECT count(*) FROM jobs s
                WHERE s.account_id = a.id AND s.holds_slot AND s.kind <> 'chat') = 1
            THEN clock_timestamp()
            ELSE greatest(clock_timestamp() + make_interval(secs => l.seconds),
                a.polled_at + make_interval(secs => {_FLOOR})) END AS at
        FROM accounts a JOIN looks l ON l.id = a.id)
    UPDATE accounts SET poll_due_at = due.at FROM due
    WHERE accounts.id = due.id AND coalesce(accounts.poll_due_at > due.at, true)
    RETURNING accounts.id,
        greatest(extract(epoch FROM accounts.poll_due_at - clock_timestamp()), 0)::float8 AS seconds"""
)


def schedule_polls(tx: Transaction, looks: Mapping[UUID, float], *, at_once: bool = False) -> dict[UUID, float]:
    """Schedule a poll of each account within these seconds, never later than scheduled.

    At least the account's floor lies between two polls (I6), except with `at_once` for a job that is alone on its
    account. Return the accounts whose time changed, with the seconds until it. A row is written only if its time
    changes, because every claim locks the row of a busy account.
    """
    entries = [
        {"id": str(account_id), "seconds": max(seconds, 0.0), "at_once": at_once and seconds <= 0}
        for account_id, seconds in looks.items()
    ]
    values = {"looks": json.dumps(entries), "floor": get_settings().poll_min_seconds}
    return {row.id: row.seconds for row in tx.all(_SCHEDULE_POLLS, values)}


def schedule_poll(tx: Transaction, account_id: UUID, *, seconds: float = 0.0) -> bool:
    """Schedule a poll of one account; see `schedule_polls`. True if it is due now."""
    return schedule_polls(tx, {account_id: seconds}).get(account_id, 1.0) <= 0


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
    upstream_id: str | None
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
    due_in: float = 0.0  # seconds; submitting: to the next look or the end of the grace period
    unclear_for: float | None = None  # submitting: seconds since its answer was lost, once that is known
    hint: str | None = None  # what a callback calls it; unproved
    claimed_at: float | None = None  # unix seconds, if requested
    order: dict[str, Any] | None = None  # as in its `params`, if requested


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
    WITH old AS (
        SELECT id, poll_due_at, polled_at FROM accounts WHERE id = ANY(:ids) AND poll_due_at <= clock_timestamp()
        ORDER BY id FOR NO KEY UPDATE),
    upd AS (
        UPDATE accounts SET polled_at = clock_timestamp(),
            poll_due_at = clock_timestamp()
                + make_interval(secs => greatest(:lost_after, poll_min_seconds, poll_max_seconds))
        FROM old WHERE accounts.id = old.id
        RETURNING accounts.*, old.poll_due_at AS was_due_at, old.polled_at AS was_polled_at)
    SELECT {COLUMNS}, poll_min_seconds, poll_max_seconds, poll_eagerness,
        extract(epoch FROM clock_timestamp() - was_due_at) AS late,
        extract(epoch FROM clock_timestamp() - was_polled_at) AS since_last FROM upd"""
)

_OPEN_JOBS = text(
    """/* open_jobs */
    SELECT j.* FROM unnest(CAST(:ids AS uuid[]), CAST(:detailed AS boolean[])) AS a(id, detailed) CROSS JOIN LATERAL (
    SELECT account_id, id, attempt, state, kind, model, submit_key, upstream_id, ready_items, queue_position, progress,
        submitted_at, group_id, event_seq, origin, attempt < max_attempts AS attempts_left,
        absent_since IS NOT NULL AS absent,
        cancel_requested_at IS NOT NULL AS cancel_requested,
        concat_ws(' ', params #>> '{order,resolution}', params #>> '{order,seconds}') AS size,
        extract(epoch FROM clock_timestamp() - submitted_at)::float8 AS age,
        state = 'submitting' AND due_at <= clock_timestamp() AS overdue_unclear,
        extract(epoch FROM due_at - clock_timestamp())::float8 AS due_in,
        CASE WHEN state = 'submitting' THEN extract(epoch FROM clock_timestamp() - absent_since)::float8 END
            AS unclear_for,
        upstream_hint AS hint,
        CASE WHEN a.detailed AND state = 'submitting' THEN (
            SELECT extract(epoch FROM max(e.at))::float8 FROM job_events e
            WHERE e.job_id = jobs.id AND e.from_state = 'queued' AND e.to_state = 'submitting') END AS claimed_at,
        CASE WHEN a.detailed THEN params -> 'order' END AS "order"
    FROM jobs WHERE account_id = a.id AND holds_slot AND kind <> 'chat'
        AND (state <> 'submitting' OR absent_since IS NOT NULL
             OR due_at <= clock_timestamp() + make_interval(secs => :grace))
    ORDER BY submitted_at NULLS FIRST, id LIMIT 5000) j"""
)


def claim_polls(tx: Transaction, account_ids: Collection[UUID]) -> dict[UUID, PollClaim]:
    """Claim the polls of these accounts; absent are those whose poll is not due. `end_polls` ends them."""
    settings = get_settings()
    lost_after = max(settings.call_timeout_seconds, settings.poll_max_seconds)
    rows = tx.all(_CLAIM_POLL, {"ids": list(account_ids), "lost_after": lost_after})
    for row in rows:
        tx.on_commit(partial(metrics.observe, "dreamery_poll_delay_seconds", max(float(row.late), 0.0)))
    return {row.id: _poll_claim(row) for row in rows}


def _poll_claim(row: Row[Any]) -> PollClaim:
    return PollClaim(
        account=account_of(row),
        floor=row.poll_min_seconds,
        ceiling=row.poll_max_seconds,
        eagerness=row.poll_eagerness,
        since_last=None if row.since_last is None else max(float(row.since_last), 0.0),
    )


def open_jobs(
    tx: Transaction, account_ids: Collection[UUID], *, detailed: Collection[UUID] = ()
) -> dict[UUID, list[OpenJob]]:
    """Return the jobs of each account that upstream has or may have, longest running first; of those in `detailed`
    with their orders.

    A submitting job is included once its submit call has certainly ended: polling earlier could treat a request in
    flight as lost.
    """
    found: dict[UUID, list[OpenJob]] = {account_id: [] for account_id in account_ids}
    values = {"ids": list(account_ids), "detailed": [one in detailed for one in account_ids]}
    for row in tx.all(_OPEN_JOBS, {**values, "grace": get_settings().unclear_grace_seconds}):
        columns = {name: value for name, value in row._mapping.items() if name != "account_id"}  # noqa: SLF001
        found[row.account_id].append(OpenJob(**columns))
    return found


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


_SET_NEXT_POLLS = text(
    """/* set_next_poll */
    WITH ends AS (SELECT * FROM jsonb_to_recordset(CAST(:ends AS jsonb)) AS e(id uuid, seconds float8)),
    locked AS MATERIALIZED (
        SELECT a.id, e.seconds FROM accounts a JOIN ends e ON e.id = a.id ORDER BY a.id FOR NO KEY UPDATE OF a)
    UPDATE accounts SET poll_due_at = least(poll_due_at, clock_timestamp() + make_interval(secs => locked.seconds))
    FROM locked WHERE accounts.id = locked.id AND locked.seconds IS NOT NULL"""
)
# A separate statement after the lock: an UPDATE that waits for a claim would evaluate NOT EXISTS in its old snapshot
# and stop the polling of the job just claimed.
_STOP_POLLING = text(
    """/* stop_polling */
    UPDATE accounts SET poll_due_at = NULL WHERE id = ANY(:ids) AND NOT EXISTS (
        SELECT 1 FROM jobs WHERE account_id = accounts.id AND holds_slot AND kind <> 'chat')"""
)


def end_polls(tx: Transaction, ends: Mapping[UUID, float | None]) -> None:
    """Set the time of the next poll of each account, in seconds from now, at the end of a claimed one.

    A submit meanwhile may have set an earlier one. None = it has no open jobs: polling stops, unless a job was claimed
    meanwhile; the next submit schedules a poll again.
    """
    entries = [{"id": str(account_id), "seconds": seconds} for account_id, seconds in ends.items()]
    tx.run(_SET_NEXT_POLLS, {"ends": json.dumps(entries)})
    if idle := [account_id for account_id, seconds in ends.items() if seconds is None]:
        tx.run(_STOP_POLLING, {"ids": idle})


def postpone_poll(tx: Transaction, account_id: UUID, *, seconds: float) -> None:
    """Poll the account again in this many seconds, at most as late as it is scheduled, and not before."""
    tx.run(
        text(
            """UPDATE accounts SET poll_due_at = clock_timestamp() + make_interval(secs => :seconds)
               WHERE id = :id AND poll_due_at IS NOT NULL"""
        ),
        {"id": account_id, "seconds": seconds},
    )
