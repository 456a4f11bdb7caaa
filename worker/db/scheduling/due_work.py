"""Work that the dispatcher finds: queued and saving jobs to enqueue, and repairs after crashes.

Writes only `nudged_at`, `poll_due_at` and expired slots. Changes of state are in `jobs/state_machine.py`.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from worker.core.job_state import OPEN, UPSTREAM, JobState, sql_list
from worker.db.accounts.available_credits import covers, credits_left
from worker.db.accounts.concurrency import SUBMIT_KINDS, free_slots, slot_limits
from worker.db.accounts.eligibility import may_use, model_works, ready
from worker.db.accounts.queue_lines import in_line, line_heads
from worker.db.engine import Transaction

# A job that is not enqueued already.
_DUE = """due_at <= clock_timestamp() AND cancel_requested_at IS NULL
    AND (nudged_at IS NULL OR nudged_at < clock_timestamp() - make_interval(secs => :again_after))"""


def _may_work(account: str, job: str) -> str:
    """SQL: whether a row of `ready` may take a job. Without an id it is an account that no job names."""
    return f"""{account}.kind = {job}.kind AND {may_use(account, job)} AND {model_works(account, job)}
        AND ({account}.id IS NULL OR NOT ({account}.id = ANY({job}.avoid_accounts)))
        AND {covers(f"{account}.left", f"{job}.price")}"""


# For every account that is ready: the first waiting jobs of each kind, at most as many as it has free slots, and at
# most four, because a submit task continues with the next job by itself. The queue is read by lines
# (`accounts/queue_lines.py`), so jobs that no account can take hide nothing, however many they are. Starting from what
# waits keeps idle accounts out of the query; accounts that no job names are grouped.
_TAKE_DUE_SUBMITS = text(
    f"""/* take_submits */
    WITH RECURSIVE {line_heads("lines", "CAST(:kinds AS text[])")},
    -- A superset: `may_use` decides below. The claim decides which account takes a job.
    usable AS (
        SELECT DISTINCT unnest(account_ids) AS id, kind FROM lines
        UNION SELECT a.id, p.kind FROM accounts a
            JOIN (SELECT DISTINCT user_id, kind FROM lines WHERE account_ids = '{{}}') p ON p.user_id = a.user_id
        UNION SELECT a.id, p.kind FROM accounts a
            CROSS JOIN (SELECT DISTINCT kind FROM lines WHERE account_ids = '{{}}') p WHERE a.pool),
    named AS MATERIALIZED (SELECT DISTINCT unnest(account_ids || avoid_accounts) AS id FROM lines),
    prices AS MATERIALIZED (SELECT DISTINCT price FROM lines WHERE price IS NOT NULL),
    ready AS MATERIALIZED (
        SELECT DISTINCT t.id, r.pool, r.user_id, r.groups, r.provider, r.currency, r.model_rests, r.kind,
            least(r.free, 4) AS free,
            -- The highest price that it can pay; NULL = its credits are unknown.
            CASE WHEN r.left IS NOT NULL
                THEN coalesce((SELECT max(price) FROM prices WHERE price <= r.left), -1) END AS left
        FROM (SELECT a.id, a.pool, a.user_id, a.groups, a.provider, a.currency, a.model_rests, w.kind,
                  {free_slots("a", "w.kind")} AS free,
                  {credits_left("a")} AS left
              FROM accounts a JOIN usable w USING (id) WHERE {ready("a")}) r
        LEFT JOIN named t USING (id) WHERE r.free > 0),
    heads AS MATERIALIZED (
        SELECT l.kind, l.line, l.user_id, l.account_choice, l.account_ids, l.avoid_accounts, l.price,
            l.providers, l.currency, l.model, j.id, j.place
        FROM lines l CROSS JOIN LATERAL (
            SELECT id, place FROM jobs WHERE {in_line("l")} AND {_DUE} ORDER BY place, id LIMIT 1) j),
    -- The first jobs of an account are in the lines whose heads come first.
    chosen AS (
        SELECT DISTINCT j.id FROM ready r CROSS JOIN LATERAL (
            SELECT w.id FROM (
                SELECT h.kind, h.line FROM heads h WHERE {_may_work("r", "h")}
                ORDER BY h.place, h.id LIMIT r.free) f
            CROSS JOIN LATERAL (
                SELECT id, place FROM jobs WHERE {in_line("f")} AND {_DUE} ORDER BY place, id LIMIT r.free) w
            ORDER BY w.place, w.id LIMIT r.free) j
        LIMIT :limit)
    UPDATE jobs SET nudged_at = clock_timestamp() FROM chosen WHERE jobs.id = chosen.id AND jobs.state = 'queued'
    RETURNING jobs.id, jobs.place"""
)

_TAKE_DUE_SAVES = text(
    """/* take_saves */
    UPDATE jobs SET nudged_at = clock_timestamp() WHERE id IN (
        SELECT id FROM jobs WHERE state = 'saving' AND kind <> 'chat' AND due_at <= now()
          AND (nudged_at IS NULL OR nudged_at < clock_timestamp() - make_interval(secs => :again_after))
        ORDER BY due_at LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING id"""
)


def take_due_submits(tx: Transaction, *, again_after: float, limit: int) -> list[UUID]:
    """Return queued jobs that an account has a free slot for, and mark them as enqueued.

    Jobs that were enqueued within `again_after` seconds are skipped.
    """
    return _take(tx, SUBMIT_KINDS, again_after=again_after, limit=limit)


def take_due_conversations(tx: Transaction, *, again_after: float, limit: int) -> list[UUID]:
    """Like `take_due_submits`, for queued conversations."""
    return _take(tx, ("chat",), again_after=again_after, limit=limit)


def _take(tx: Transaction, kinds: tuple[str, ...], *, again_after: float, limit: int) -> list[UUID]:
    values = {"again_after": again_after, "limit": limit, "kinds": list(kinds), **slot_limits()}
    rows = sorted(tx.all(_TAKE_DUE_SUBMITS, values), key=lambda row: (row.place, row.id))
    return [row.id for row in rows]


def take_due_saves(tx: Transaction, *, again_after: float, limit: int) -> list[UUID]:
    """Return jobs whose results are ready to be copied, and mark them as enqueued."""
    return [row.id for row in tx.all(_TAKE_DUE_SAVES, {"again_after": again_after, "limit": limit})]


def schedule_missing_polls(tx: Transaction) -> int:
    """Make accounts with open jobs but without a scheduled poll due now; return how many."""
    rows = tx.all(
        text(
            """UPDATE accounts SET poll_due_at = clock_timestamp()
               WHERE poll_due_at IS NULL
                 AND id IN (SELECT account_id FROM jobs WHERE holds_slot AND kind <> 'chat') RETURNING id"""
        )
    )
    return len(rows)


def release_expired_slots(tx: Transaction) -> int:
    """Release slots of cancelled jobs past their deadline (upstream has finished them by now); return how many."""
    rows = tx.all(
        text(
            """UPDATE jobs SET holds_slot = false
               WHERE holds_slot AND state = 'cancelled' AND deadline_at <= clock_timestamp() RETURNING id"""
        )
    )
    return len(rows)


@dataclass(frozen=True, slots=True)
class LostConversation:
    """A conversation whose lease has expired."""

    id: UUID
    attempt: int
    state: JobState
    sent: bool  # the call upstream had begun
    attempts_left: bool
    cancel_requested: bool


def find_lost_conversations(tx: Transaction, *, limit: int) -> list[LostConversation]:
    """Return started conversations whose lease has expired."""
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
    return [LostConversation(**{**row._mapping, "state": JobState(row.state)}) for row in rows]  # noqa: SLF001


def find_answered_conversations(tx: Transaction, *, limit: int) -> list[UUID]:
    """Return conversations that only waited for their jobs, all of which have ended."""
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
