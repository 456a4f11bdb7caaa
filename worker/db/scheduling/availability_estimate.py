"""Which accounts could take a job that does not exist yet, and what stands before it. Nothing is written."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.settings import get_settings
from worker.db.accounts.available_credits import affords, credits_left, is_broke
from worker.db.accounts.concurrency import free_slots, slot_limits, slots_of
from worker.db.accounts.eligibility import free_at, may_use
from worker.db.engine import Transaction


@dataclass(frozen=True, slots=True)
class Wish:
    """The job, as far as accounts are concerned.

    `account_ids` narrows what its user may use (none named and no strangers = all of that). `strangers` = session ids
    without a row, of which nothing speaks against a first job. `place` = its place in line, see `turns.py`.
    """

    kind: str
    price: int | None
    user_id: UUID | None
    account_choice: str
    account_ids: list[UUID]
    avoid: list[UUID]
    place: float
    strangers: int = 0


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a job would meet: of the accounts that have its model, how many could take it, and the line before it."""

    accounts: int
    at_all: int  # not switched off, and not surely without its price
    now: int  # at once: rested, within its hours and cap, a free slot, the pace, enough credits
    ahead: int  # jobs that wait before it
    slots: int
    busy: int
    submits_per_minute: float
    free_seconds: float  # until the first account works again (rest, hours, cap), when none does
    rest_seconds: float  # until the rest of the first that could pay ends
    broke: int  # surely without its price
    left: int | None  # credits of those that work, together; None = of one it is not known
    rest_code: str | None  # why the longest-resting account rests


_ACCOUNTS = text(
    f"""/* prospects */
    SELECT a.id, a.max_images, a.max_videos, a.kind_rests, extract(epoch FROM clock_timestamp()) AS clock,
        a.state = 'ok' AS works, a.rest_code, a.submits_per_minute,
        coalesce(greatest(extract(epoch FROM a.rest_until - clock_timestamp()), 0), 0) AS rests,
        coalesce(greatest(extract(epoch FROM {free_at("a")} - clock_timestamp()), 0), 0) AS free_in,
        a.next_submit_at <= clock_timestamp() AS paced, {free_slots("a", "CAST(:kind AS text)")} AS free,
        {credits_left("a")} AS left, {affords(credits_left("a"), "CAST(:price AS integer)")} AS affords,
        coalesce({is_broke("a", "CAST(:price AS integer)")}, false) AS broke
    FROM accounts a CROSS JOIN (SELECT CAST(:user_id AS uuid) AS user_id, CAST(:ids AS uuid[]) AS account_ids,
        CAST(:choice AS text) AS account_choice) w
    WHERE {may_use("a", "w")} AND (w.account_ids <> '{{}}' OR a.state = 'ok') AND NOT (a.id = ANY(:avoid))"""
)
# As `reports.JobView.position` counts them.
_AHEAD = text(
    """/* ahead */
    SELECT count(*) AS n FROM jobs o WHERE o.state = 'queued' AND o.kind = :kind AND o.place <= :place
       AND (o.account_ids && CAST(:ids AS uuid[]) OR (o.account_ids = '{}' AND CAST(:ids AS uuid[]) = '{}' AND (
            o.user_id IS NOT DISTINCT FROM CAST(:user_id AS uuid)
            OR (o.account_choice <> 'own' AND CAST(:choice AS text) <> 'own'))))"""
)


def prospect(tx: Transaction, wish: Wish) -> Prospect:
    """Look at the accounts that the job might run on, and at the line before it."""
    values = {
        "kind": wish.kind,
        "price": wish.price,
        "user_id": wish.user_id,
        "choice": wish.account_choice,
        "ids": wish.account_ids,
        "avoid": wish.avoid,
        "place": wish.place,
    }
    # Only strangers: then the empty list does not stand for all.
    nobody = bool(wish.strangers) and not wish.account_ids
    rows = [] if nobody else tx.all(_ACCOUNTS, {**values, **slot_limits()})
    ahead = None if nobody else tx.first(_AHEAD, values)
    return _told(wish, rows, int(ahead.n) if ahead is not None else 0)


def _told(wish: Wish, rows: list[Row[Any]], ahead: int) -> Prospect:
    settings, strangers = get_settings(), wish.strangers
    usable = [row for row in rows if row.works]
    payers = [row for row in usable if not row.broke]
    ready = [row for row in usable if row.free_in == 0]
    slots = [slots_of(row)[wish.kind] for row in ready]
    default = slot_limits()[f"most_{wish.kind}"]
    pace = sum(row.submits_per_minute or settings.account_submits_per_minute for row in ready)
    resting = max(usable, key=lambda row: row.rests, default=None)
    alone = not strangers
    return Prospect(
        accounts=len(rows) + strangers,
        at_all=len(payers) + strangers,
        now=sum(bool(row.paced and row.free > 0 and row.affords) for row in ready) + strangers,
        ahead=ahead,
        slots=sum(slots) + strangers * default,
        busy=sum(max(most - max(row.free, 0), 0) for most, row in zip(slots, ready, strict=True)),
        submits_per_minute=float(pace) + strangers * settings.account_submits_per_minute,
        free_seconds=float(min((row.free_in for row in usable), default=0)) if alone and not ready else 0.0,
        rest_seconds=float(min((row.rests for row in payers), default=0)) if alone else 0.0,
        broke=len(usable) - len(payers),
        left=None if strangers or any(row.left is None for row in usable) else int(sum(row.left for row in usable)),
        rest_code=resting.rest_code if resting is not None and resting.rests and alone else None,
    )
