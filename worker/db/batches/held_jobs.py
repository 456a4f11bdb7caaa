"""Jobs that are held before the queue: `held` <-> `queued`. No account looks at a held job, however many there are.

A job is held for one of these reasons, which its `hold` names:

    batch:ID:KIND   it is a part of a batch, which keeps only a few of its jobs in the queue
    key:ID          its key, or the user of the key, may have a limited number of jobs in the queue and at work
    idle            it waits for idle accounts
    time            it waits for a moment (`due_at`)

The jobs of one owner and hold are released in the order of their times and ids, when all reasons allow it: a job of a
batch also waits for the limit of its key. `release` runs with the tick, and when a key with a limit gets new jobs.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.errors import ERRORS
from worker.core.job_state import OPEN, JobState, sql_list
from worker.core.settings import get_settings
from worker.db.accounts.concurrency import free_slots, slot_limits
from worker.db.accounts.eligibility import candidates, may_use, ready
from worker.db.accounts.queue_lines import line_heads
from worker.db.engine import Transaction
from worker.db.jobs import state_machine
from worker.db.jobs.state_machine import change_many
from worker.db.scheduling import fair_queue

IDLE, TIME = "idle", "time"
# Jobs of one kind that a batch keeps in the queue: enough for many accounts, and few to take back when it is paused.
WINDOW = 200
# An idle job that waited so long is released in turn: idle accounts may never come.
AGEING_HOURS = 12
# Held jobs of one caller.
MOST_HELD = 50_000
_MOST_GROUPS = 300


def batch_hold(batch_id: UUID, kind: str) -> str:
    """Return the hold of the jobs of a batch. Each kind has its own, so that videos do not hold up pictures."""
    return f"batch:{batch_id.hex}:{kind}"


def key_hold(key_root: UUID) -> str:
    """Return the hold of the jobs of a key whose number at work is limited."""
    return f"key:{key_root.hex}"


@dataclass(frozen=True, slots=True)
class HeldGroup:
    """The held jobs of one owner and hold."""

    owner: str
    hold: str


# From group to group through `ix_jobs_held`, without the jobs in between. In random order: what little room idle
# accounts have goes to another group each time.
_DUE_GROUPS = text(
    """/* held_groups */
    WITH RECURSIVE groups AS (
        (SELECT owner, hold FROM jobs WHERE state = 'held' ORDER BY owner, hold LIMIT 1)
        UNION ALL
        SELECT n.owner, n.hold FROM groups g CROSS JOIN LATERAL (
            SELECT owner, hold FROM jobs WHERE state = 'held' AND (owner, hold) > (g.owner, g.hold)
            ORDER BY owner, hold LIMIT 1) n)
    SELECT g.owner, g.hold FROM groups g CROSS JOIN LATERAL (
        SELECT batch_id FROM jobs WHERE state = 'held' AND owner = g.owner AND hold = g.hold AND due_at <= now()
        ORDER BY due_at, id LIMIT 1) h
    LEFT JOIN batches b ON b.id = h.batch_id
    WHERE b.id IS NULL OR (b.state = 'in_progress' AND b.paused_at IS NULL)
    ORDER BY random() LIMIT :limit"""
)


def find_due_groups(tx: Transaction, *, limit: int = _MOST_GROUPS) -> list[HeldGroup]:
    """Return groups with held jobs whose time has come."""
    return [HeldGroup(row.owner, row.hold) for row in tx.all(_DUE_GROUPS, {"limit": limit})]


_HEADS = text(
    f"""/* held_jobs */
    SELECT id, attempt, owner, user_id, api_key_id, batch_id, kind, model, account_ids, avoid_accounts, account_choice,
        providers, currency, price,
        coalesce(lane = 'idle' AND created_at > now() - make_interval(hours => {AGEING_HOURS}), false) AS idle
    FROM jobs WHERE state = 'held' AND owner = :owner AND hold = :hold AND due_at <= now()
    ORDER BY due_at, id LIMIT :limit"""
)
_RELEASE = change_many(
    "release",
    to=JobState.QUEUED,
    columns="turn double precision, priority integer",
    where="AND jobs.cancel_requested_at IS NULL",
    # The lists of references are those of the queue from now on: it is due, and the tick need not find it at once.
    sets="""turn = input.turn, priority = input.priority, due_at = clock_timestamp(), nudged_at = clock_timestamp(),
            deadline_at = coalesce(jobs.expires_at, clock_timestamp() + make_interval(secs => :deadline))""",
    returned="jobs.account_ids",
)
_HOLD_BACK = change_many(
    "hold_back", to=JobState.HELD, columns="unused integer", sets="due_at = least(jobs.due_at, now()), nudged_at = NULL"
)


def release(tx: Transaction, group: HeldGroup) -> list[Row[Any]]:
    """held -> queued: as many jobs of the group as its reasons allow now, in order. Return `id`, `kind`, `account_ids`
    and the columns of every change.
    """
    # Two releases for one limit must not count the same room.
    fair_queue.lock_owner(tx, group.owner)
    heads = tx.all(_HEADS, {"owner": group.owner, "hold": group.hold, "limit": WINDOW})
    if not heads:
        return []
    room = min(_batch_room(tx, heads[0]), _key_room(tx, heads[0]), len(heads))
    heads = heads[: max(room, 0)]
    # Idle jobs of one group come in the order of their age, so aged ones are first.
    aged = [row for row in heads if not row.idle]
    waiting = [row for row in heads if row.idle]
    chosen = aged + waiting[: _idle_room(tx, waiting[0]) if waiting else 0]
    positions = fair_queue.assign_jobs(tx, chosen)
    changes = [
        {"id": str(row.id), "attempt": row.attempt, "note": {}, "turn": place.turn, "priority": place.priority}
        for row, place in zip(chosen, positions, strict=True)
    ]
    released = state_machine.apply_many(
        tx,
        _RELEASE,
        changes,
        from_state=JobState.HELD,
        actor="release",
        deadline=get_settings().queue_deadline_seconds,
    )
    return list(released.values())


def _batch_room(tx: Transaction, head: Row[Any]) -> int:
    """Return how many more jobs of its kind the batch may have in the queue. The row of the batch stays locked."""
    if head.batch_id is None:
        return WINDOW
    row = tx.first(
        text(
            """SELECT CASE WHEN b.state = 'in_progress' AND b.paused_at IS NULL THEN :window - (
                   SELECT count(*) FROM jobs WHERE batch_id = b.id AND state = 'queued' AND kind = :kind)
               ELSE 0 END AS room
               FROM batches b WHERE b.id = :id FOR SHARE OF b"""
        ),
        {"id": head.batch_id, "kind": head.kind, "window": WINDOW},
    )
    return int(row.room) if row is not None else WINDOW


# The limits of the key and of its user as they are now.
_LIMITS = text(
    """SELECT coalesce(k.root_id, k.id) AS root, k.limits ->> 'concurrent_jobs' AS of_key,
           u.limits ->> 'concurrent_jobs' AS of_user
       FROM api_keys k JOIN users u ON u.id = k.user_id WHERE k.id = :id"""
)
_AT_WORK = text(
    f"""/* jobs_at_work */
    SELECT count(*) AS of_user, count(*) FILTER (WHERE api_key_id IN (
        SELECT id FROM api_keys WHERE id = :root OR root_id = :root)) AS of_key
    FROM jobs WHERE owner = :owner AND state IN {sql_list(OPEN)}"""
)


def _key_room(tx: Transaction, head: Row[Any]) -> int:
    """Return how many more jobs the key and its user may have in the queue and at work."""
    limits = tx.first(_LIMITS, {"id": head.api_key_id}) if head.api_key_id is not None else None
    numbers = {name: getattr(limits, name) for name in ("of_key", "of_user")} if limits is not None else {}
    most = {name: int(float(value)) for name, value in numbers.items() if value not in {None, "unlimited"}}
    if limits is None or not most:
        return WINDOW
    used = tx.all(_AT_WORK, {"owner": head.owner, "root": limits.root})[0]
    return min(number - int(getattr(used, name)) for name, number in most.items())


# Free slots of accounts that nobody in the queue waits for. Each line of the queue is looked at once.
_IDLE_SLOTS = text(
    f"""/* idle_slots */
    WITH RECURSIVE {line_heads("lines", "ARRAY[CAST(:kind AS text)]")},
    w AS MATERIALIZED (SELECT * FROM jobs WHERE id = :id)
    SELECT coalesce(sum(greatest({free_slots("a", "w.kind")}, 0)), 0) AS free
    FROM w CROSS JOIN {candidates("w")}
    WHERE {ready("a")} AND NOT (a.id = ANY(w.avoid_accounts))
      AND NOT EXISTS (SELECT 1 FROM lines l WHERE {may_use("a", "l")} AND NOT (a.id = ANY(l.avoid_accounts)))"""
)


def _idle_room(tx: Transaction, head: Row[Any]) -> int:
    return int(tx.all(_IDLE_SLOTS, {"id": head.id, "kind": head.kind, **slot_limits()})[0].free)


_QUEUED_OF_PAUSED = text(
    """/* queued_of_paused */
    SELECT j.id, j.attempt FROM batches b JOIN jobs j ON j.batch_id = b.id AND j.state = 'queued'
    WHERE b.state = 'in_progress' AND b.paused_at IS NOT NULL AND (CAST(:id AS uuid) IS NULL OR b.id = :id)
    LIMIT :limit"""
)


def hold_back_paused(tx: Transaction, batch_id: UUID | None = None, *, limit: int = 2 * WINDOW) -> list[Row[Any]]:
    """queued -> held: the jobs of paused batches, or of one, that no account has claimed."""
    rows = tx.all(_QUEUED_OF_PAUSED, {"id": batch_id, "limit": limit})
    changes = [{"id": str(row.id), "attempt": row.attempt, "note": {}} for row in rows]
    changed = state_machine.apply_many(tx, _HOLD_BACK, changes, from_state=JobState.QUEUED, actor="pause")
    return list(changed.values())


_FAIL = change_many(
    "fail_held",
    to=JobState.FAILED,
    columns="unused integer",
    where="AND jobs.deadline_at <= now()",
    sets="""finished_at = clock_timestamp(), error_code = :code, error_message = :message, charged = 0,
            settled_at = clock_timestamp()""",
    webhook=True,
)
_CANCEL = change_many(
    "cancel_waiting",
    to=JobState.CANCELLED,
    columns="unused integer",
    sets="""finished_at = clock_timestamp(), cancel_requested_at = clock_timestamp(), charged = 0,
            settled_at = clock_timestamp()""",
    webhook=True,
)
EXPIRED = "job_expired"


def fail_overdue(tx: Transaction, *, limit: int) -> list[Row[Any]]:
    """held -> failed: jobs whose time is over before they were released. Return the changed rows."""
    rows = tx.all(
        text(
            """SELECT id, attempt FROM jobs WHERE state = 'held' AND deadline_at <= now()
               ORDER BY deadline_at LIMIT :limit"""
        ),
        {"limit": limit},
    )
    changes = [{"id": str(row.id), "attempt": row.attempt, "note": {"code": EXPIRED}} for row in rows]
    changed = state_machine.apply_many(
        tx,
        _FAIL,
        changes,
        from_state=JobState.HELD,
        actor="tick",
        code=EXPIRED,
        message=ERRORS[EXPIRED].message,
        event="job.failed",
    )
    return list(changed.values())


def cancel_queued(tx: Transaction, batch_id: UUID, *, by: dict[str, Any]) -> list[Row[Any]]:
    """queued -> cancelled: the jobs of a batch that an account could claim next. Return them.

    In the transaction that begins to cancel the batch, so that no line starts after it.
    """
    return cancel_waiting(tx, batch_id, by=by, limit=2 * WINDOW, states=(JobState.QUEUED,))[0]


def cancel_waiting(
    tx: Transaction,
    batch_id: UUID,
    *,
    by: dict[str, Any],
    limit: int,
    states: tuple[JobState, ...] = (JobState.HELD, JobState.QUEUED),
) -> tuple[list[Row[Any]], bool]:
    """held, queued -> cancelled: jobs of a batch that no account has claimed. Return them, and whether more may wait.

    Jobs that were claimed before and wait again may have cost something: `state_machine.cancel` ends those.
    """
    found: list[Row[Any]] = []
    for state in states:
        rows = tx.all(
            text(
                """SELECT id, attempt FROM jobs
                   WHERE batch_id = :id AND state = :state AND attempt = 0 ORDER BY id LIMIT :limit"""
            ),
            {"id": batch_id, "state": state, "limit": limit},
        )
        changes = [{"id": str(row.id), "attempt": row.attempt, "note": by} for row in rows]
        changed = state_machine.apply_many(tx, _CANCEL, changes, from_state=state, actor="batch", event="job.cancelled")
        found += changed.values()
        if len(rows) == limit:
            return found, True
    return found, False


def count_held(tx: Transaction, owner: str, *, at_most: int) -> int:
    """Return how many jobs of an owner are held, counted up to `at_most`."""
    row = tx.first(
        text(
            """SELECT count(*) AS n FROM (
                   SELECT 1 FROM jobs WHERE owner = :owner AND state = 'held' LIMIT :at_most) counted"""
        ),
        {"owner": owner, "at_most": at_most},
    )
    return int(row.n) if row is not None else 0
