"""Which accounts could take a job that does not exist yet, and what stands before it. Nothing is written."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from worker.core.settings import get_settings
from worker.db.engine import Transaction
from worker.db.purse import affords, credits_left, is_broke
from worker.db.slots import free_slots, slot_limits, slots_of


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a job would meet: of the accounts that have its model, how many could take it, and the line before it."""

    accounts: int
    at_all: int  # not switched off, and not surely without its price
    now: int  # at once: rested, a free slot, the pace, enough credits
    ahead: int  # jobs that wait before it
    slots: int
    busy: int
    submits_per_minute: float
    rest_seconds: float  # until the first account is ready, when none is
    broke: int  # surely without its price
    left: int | None  # credits of those that work, together; None = of one it is not known
    rest_code: str | None  # why the longest-resting account rests


_ACCOUNTS = text(
    f"""/* prospects */
    SELECT a.id, a.max_images, a.max_videos, a.kind_rests, extract(epoch FROM clock_timestamp()) AS clock,
        a.state = 'ok' AS works, a.rest_code, a.submits_per_minute,
        coalesce(greatest(extract(epoch FROM a.rest_until - clock_timestamp()), 0), 0) AS rests,
        a.next_submit_at <= clock_timestamp() AS paced, {free_slots("a", "CAST(:kind AS text)")} AS free,
        {credits_left("a")} AS left, {affords(credits_left("a"), "CAST(:price AS integer)")} AS affords,
        coalesce({is_broke("a", "CAST(:price AS integer)")}, false) AS broke
    FROM accounts a
    WHERE (a.id = ANY(:ids) OR (CAST(:ids AS uuid[]) = '{{}}' AND a.pool AND a.state = 'ok'))
      AND NOT (a.id = ANY(:avoid))"""
)
_AHEAD = text(
    """SELECT count(*) AS n FROM jobs WHERE state = 'queued' AND kind = :kind
       AND (account_ids && CAST(:ids AS uuid[]) OR (account_ids = '{}' AND CAST(:ids AS uuid[]) = '{}'))"""
)


def prospect(
    tx: Transaction, *, kind: str, price: int | None, account_ids: list[UUID], avoid: list[UUID], strangers: int = 0
) -> Prospect:
    """Look at these accounts (none named and no strangers = the pool). `strangers` = session ids without a row, of
    which nothing speaks against a first job.
    """
    named = bool(account_ids or strangers)
    values = {"kind": kind, "price": price, "ids": account_ids, "avoid": avoid}
    rows = tx.all(_ACCOUNTS, {**values, **slot_limits()}) if account_ids or not named else []
    ahead = tx.first(_AHEAD, values) if account_ids or not named else None
    settings = get_settings()
    usable = [row for row in rows if row.works]
    ready = [row for row in usable if row.rests == 0]
    slots = [slots_of(row)[kind] for row in ready]
    default = slot_limits()[f"most_{kind}"]
    pace = sum(row.submits_per_minute or settings.account_submits_per_minute for row in ready)
    resting = max(usable, key=lambda row: row.rests, default=None)
    return Prospect(
        accounts=len(rows) + strangers,
        at_all=sum(not row.broke for row in usable) + strangers,
        now=sum(bool(row.paced and row.free > 0 and row.affords) for row in ready) + strangers,
        ahead=int(ahead.n) if ahead is not None else 0,
        slots=sum(slots) + strangers * default,
        busy=sum(max(most - max(row.free, 0), 0) for most, row in zip(slots, ready, strict=True)),
        submits_per_minute=float(pace) + strangers * settings.account_submits_per_minute,
        rest_seconds=float(min((row.rests for row in usable), default=0)) if not ready else 0.0,
        broke=sum(bool(row.broke) for row in usable),
        left=None if strangers or any(row.left is None for row in usable) else int(sum(row.left for row in usable)),
        rest_code=resting.rest_code if resting is not None and not ready and not strangers else None,
    )
