"""Which accounts could take a job that does not exist yet, and the queue in front of it. Writes nothing."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.settings import get_settings
from worker.db.accounts.available_credits import covers, credits_left, is_insufficient
from worker.db.accounts.concurrency import free_slots, slot_limits, slots_of
from worker.db.accounts.eligibility import ANY_NEEDS, NEEDS, Needs, free_at, may_use
from worker.db.engine import Transaction
from worker.db.scheduling.queue_positions import find_positions, last_of


@dataclass(frozen=True, slots=True)
class JobRequirements:
    """What a job requires of accounts.

    `account_ids` narrows the accounts of its user (empty and no unknown sessions = all of them). `unknown_sessions` =
    session ids without an account row; each is assumed to be able to run a job. `place` = see `fair_queue.py`.
    """

    kind: str
    price: int | None
    user_id: UUID | None
    account_choice: str
    account_ids: list[UUID]
    avoid: list[UUID]
    place: float
    unknown_sessions: int = 0
    needs: Needs = ANY_NEEDS


@dataclass(frozen=True, slots=True)
class Availability:
    """The accounts that offer the job's model, how many could take it, and the queue in front of it."""

    accounts: int
    usable: int  # enabled, and not known to lack the credits
    available_now: int  # no cooldown, within hours and daily cap, a free slot, pace and credits
    jobs_ahead: int  # counted up to `MOST_AHEAD` of `queue_positions.py`
    slots: int
    busy: int
    submits_per_minute: float
    free_seconds: float  # until the first account works again (cooldown, hours, cap), if none does
    cooldown_seconds: float  # until the first cooldown of a usable account ends
    insufficient: int  # enabled, but known to lack the credits
    credits_left: int | None  # of all enabled accounts; None = unknown for one of them
    cooldown_code: str | None  # error code of the longest cooldown


_ACCOUNTS = text(
    f"""/* prospects */
    SELECT a.id, a.max_images, a.max_videos, a.kind_rests, extract(epoch FROM clock_timestamp()) AS clock,
        a.state = 'ok' AS works, a.rest_code, a.submits_per_minute,
        coalesce(greatest(extract(epoch FROM a.rest_until - clock_timestamp()), 0), 0) AS cooldown,
        coalesce(greatest(extract(epoch FROM {free_at("a")} - clock_timestamp()), 0), 0) AS free_in,
        a.next_submit_at <= clock_timestamp() AS paced, {free_slots("a", "CAST(:kind AS text)")} AS free,
        {credits_left("a")} AS left, {covers(credits_left("a"), "CAST(:price AS integer)")} AS covered,
        coalesce({is_insufficient("a", "CAST(:price AS integer)")}, false) AS insufficient
    FROM accounts a CROSS JOIN (SELECT CAST(:user_id AS uuid) AS user_id, CAST(:ids AS uuid[]) AS account_ids,
        CAST(:choice AS text) AS account_choice, {NEEDS}) w
    WHERE {may_use("a", "w")} AND (w.account_ids <> '{{}}' OR a.state = 'ok') AND NOT (a.id = ANY(:avoid))"""
)


def estimate_availability(tx: Transaction, job: JobRequirements) -> Availability:
    """Return the accounts that could run the job, and the queue in front of it."""
    values = {
        "kind": job.kind,
        "price": job.price,
        "user_id": job.user_id,
        "choice": job.account_choice,
        "ids": job.account_ids,
        "avoid": job.avoid,
        **job.needs.values(),
    }
    # With unknown sessions only, the empty list does not mean all accounts.
    no_accounts = bool(job.unknown_sessions) and not job.account_ids
    rows = [] if no_accounts else tx.all(_ACCOUNTS, {**values, **slot_limits()})
    new = last_of(job.kind, job.place, account_ids=job.account_ids, user_id=job.user_id, choice=job.account_choice)
    return _availability(job, rows, 0 if no_accounts else find_positions(tx, [new])[new.id] - 1)


def _availability(job: JobRequirements, rows: list[Row[Any]], jobs_ahead: int) -> Availability:
    settings, unknown = get_settings(), job.unknown_sessions
    enabled = [row for row in rows if row.works]
    usable = [row for row in enabled if not row.insufficient]
    working = [row for row in enabled if row.free_in == 0]
    slots = [slots_of(row)[job.kind] for row in working]
    default_slots = slot_limits()[f"most_{job.kind}"]
    pace = sum(row.submits_per_minute or settings.account_submits_per_minute for row in working)
    longest = max(enabled, key=lambda row: row.cooldown, default=None)
    return Availability(
        accounts=len(rows) + unknown,
        usable=len(usable) + unknown,
        available_now=sum(bool(row.paced and row.free > 0 and row.covered) for row in working) + unknown,
        jobs_ahead=jobs_ahead,
        slots=sum(slots) + unknown * default_slots,
        busy=sum(max(most - max(row.free, 0), 0) for most, row in zip(slots, working, strict=True)),
        submits_per_minute=float(pace) + unknown * settings.account_submits_per_minute,
        free_seconds=0.0 if unknown or working else float(min((row.free_in for row in enabled), default=0)),
        cooldown_seconds=0.0 if unknown else float(min((row.cooldown for row in usable), default=0)),
        insufficient=len(enabled) - len(usable),
        credits_left=None
        if unknown or any(row.left is None for row in enabled)
        else int(sum(row.left for row in enabled)),
        cooldown_code=longest.rest_code if longest is not None and longest.cooldown and not unknown else None,
    )
