"""What the tick takes note of: queued and saving rows that want a nudge, and repairs after crashes.

Writes only `nudged_at`, `poll_due_at` and forgotten slots; states are `jobs.py`'s business.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from worker.core.job_state import OPEN, UPSTREAM, JobState, sql_list
from worker.db.accounts.available_credits import affords, credits_left
from worker.db.accounts.concurrency import SUBMIT_KINDS, free_slots, slot_limits
from worker.db.accounts.eligibility import may_use, ready
from worker.db.engine import Transaction

# For every account that is ready: as many of the first waiting jobs of each kind as it has free slots for it, but few,
# for a message that finds more of them takes them along. Each kind is looked at for itself, so that a long queue of one
# hides nothing of another. Starting from the waiting jobs keeps thousands of idle accounts out of the query.
_TAKE_SUBMITS = text(
    f"""/* take_submits */
    WITH waiting AS MATERIALIZED (
        SELECT w.* FROM unnest(CAST(:kinds AS text[])) AS k(kind) CROSS JOIN LATERAL (
            SELECT id, kind, user_id, account_ids, account_choice, avoid_accounts, place, price, nudged_at FROM jobs
            WHERE state = 'queued' AND kind = k.kind AND due_at <= clock_timestamp() AND cancel_requested_at IS NULL
            ORDER BY place, id LIMIT 5000) w),
    -- Not fewer than `may_use` lets through; it decides below. Who should take a job, the claim decides.
    wanted AS (
        SELECT DISTINCT unnest(account_ids) AS id, kind FROM waiting
        UNION SELECT a.id, p.kind FROM accounts a
            JOIN (SELECT DISTINCT user_id, kind FROM waiting WHERE account_ids = '{{}}') p ON p.user_id = a.user_id
        UNION SELECT a.id, p.kind FROM accounts a
            CROSS JOIN (SELECT DISTINCT kind FROM waiting WHERE account_ids = '{{}}') p WHERE a.pool),
    ready AS (
        SELECT a.id, a.pool, a.user_id, a.groups, w.kind, {free_slots("a", "w.kind")} AS free,
            {credits_left("a")} AS left
        FROM accounts a JOIN wanted w USING (id) WHERE {ready("a")}),
    chosen AS (
        SELECT DISTINCT j.id FROM ready r CROSS JOIN LATERAL (
            SELECT w.id FROM waiting w
            WHERE w.kind = r.kind AND {may_use("r", "w")}
              AND NOT (r.id = ANY(w.avoid_accounts)) AND {affords("r.left", "w.price")}
              AND (w.nudged_at IS NULL OR w.nudged_at < clock_timestamp() - make_interval(secs => :again_after))
            ORDER BY w.place, w.id LIMIT least(greatest(r.free, 0), 4)) j
        LIMIT :limit)
    UPDATE jobs SET nudged_at = clock_timestamp() FROM chosen WHERE jobs.id = chosen.id AND jobs.state = 'queued'
    RETURNING jobs.id, jobs.place"""
)

_TAKE_SAVES = text(
    """/* take_saves */
    UPDATE jobs SET nudged_at = clock_timestamp() WHERE id IN (
        SELECT id FROM jobs WHERE state = 'saving' AND kind <> 'chat' AND due_at <= clock_timestamp()
          AND (nudged_at IS NULL OR nudged_at < clock_timestamp() - make_interval(secs => :again_after))
        ORDER BY due_at LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING id"""
)


def take_submits(tx: Transaction, *, again_after: float, limit: int) -> list[UUID]:
    """Queued jobs that an account has room for and that were not nudged lately; they count as nudged now."""
    return _take(tx, SUBMIT_KINDS, again_after=again_after, limit=limit)


def take_talks(tx: Transaction, *, again_after: float, limit: int) -> list[UUID]:
    """The same for queued conversations."""
    return _take(tx, ("chat",), again_after=again_after, limit=limit)


def _take(tx: Transaction, kinds: tuple[str, ...], *, again_after: float, limit: int) -> list[UUID]:
    values = {"again_after": again_after, "limit": limit, "kinds": list(kinds), **slot_limits()}
    rows = sorted(tx.all(_TAKE_SUBMITS, values), key=lambda row: (row.place, row.id))
    return [row.id for row in rows]


def take_saves(tx: Transaction, *, again_after: float, limit: int) -> list[UUID]:
    """Jobs whose results wait to be copied and that were not nudged lately; they count as nudged now."""
    return [row.id for row in tx.all(_TAKE_SAVES, {"again_after": again_after, "limit": limit})]


def heal_polls(tx: Transaction) -> int:
    """Accounts with open jobs and no poll planned are due now."""
    rows = tx.all(
        text(
            """UPDATE accounts SET poll_due_at = clock_timestamp()
               WHERE poll_due_at IS NULL
                 AND id IN (SELECT account_id FROM jobs WHERE holds_slot AND kind <> 'chat') RETURNING id"""
        )
    )
    return len(rows)


def release_forgotten_slots(tx: Transaction) -> int:
    """Slots of cancelled jobs that upstream must have finished long ago: their deadline has passed."""
    rows = tx.all(
        text(
            """UPDATE jobs SET holds_slot = false
               WHERE holds_slot AND state = 'cancelled' AND deadline_at <= clock_timestamp() RETURNING id"""
        )
    )
    return len(rows)


@dataclass(frozen=True, slots=True)
class LostTalk:
    """A conversation whose worker shows no life any more."""

    id: UUID
    attempt: int
    state: JobState
    sent: bool  # its call had begun
    attempts_left: bool
    cancel_requested: bool


def lost_talks(tx: Transaction, *, limit: int) -> list[LostTalk]:
    """Conversations under way whose lease has run out."""
    rows = tx.all(
        text(
            f"""/* lost_talks */
            SELECT j.id, j.attempt, j.state, coalesce(c.attempt = j.attempt, false) AS sent,
                j.attempt < j.max_attempts AS attempts_left, j.cancel_requested_at IS NOT NULL AS cancel_requested
            FROM jobs j LEFT JOIN conversations c ON c.job_id = j.id
            WHERE j.kind = 'chat' AND j.holds_slot AND j.state IN {sql_list(UPSTREAM)}
              AND j.due_at <= clock_timestamp() ORDER BY j.due_at LIMIT :limit"""
        ),
        {"limit": limit},
    )
    return [LostTalk(**{**row._mapping, "state": JobState(row.state)}) for row in rows]  # noqa: SLF001


def answered_talks(tx: Transaction, *, limit: int) -> list[UUID]:
    """Conversations that only waited for their jobs, all of which have ended."""
    rows = tx.all(
        text(
            f"""/* answered_talks */
            SELECT j.id FROM jobs j WHERE j.kind = 'chat' AND j.state = 'saving' AND NOT EXISTS (
                SELECT 1 FROM jobs c WHERE c.parent_id = j.id
                  AND c.state IN {sql_list(OPEN)})
            LIMIT :limit"""
        ),
        {"limit": limit},
    )
    return [row.id for row in rows]
