"""Session ids that never worked: their account rows, and the jobs that only they could have run, leave after a day.

Whoever makes tokens up gets a row with each accepted job. What no account ever took upstream was never paid for, so
nothing is lost with it; without this anybody could fill the database.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import text

from worker.core.job_state import OPEN, sql_list
from worker.db.engine import Transaction

_OPEN = sql_list(OPEN)
_NEVER_WORKED = f"""NOT a.pool AND a.user_id IS NULL AND a.state = 'ok'
    AND greatest(a.created_at, a.last_submit_at) < clock_timestamp() - make_interval(hours => :hours)
    AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.account_id = a.id
                    AND (j.submitted_at IS NOT NULL OR NOT j.account_ids @> ARRAY[a.id]))
    AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.account_ids @> ARRAY[a.id]
                    AND (j.state IN {_OPEN} OR j.holds_slot
                         OR j.finished_at > clock_timestamp() - make_interval(hours => :hours)))"""

# Locked before they are judged: an intake that found such a row holds it until its job is committed (see
# `accounts.lock_tokens`) and is skipped here; one that comes later waits and then makes the row anew.
_LOCK = text(
    f"""/* lock_leavers */ SELECT a.id FROM accounts a WHERE {_NEVER_WORKED}
        ORDER BY a.id LIMIT :limit FOR UPDATE OF a SKIP LOCKED"""
)
# In a statement of its own: the locking one may have judged by an older snapshot.
_JUDGE = text(f"SELECT a.id FROM accounts a WHERE a.id = ANY(:ids) AND {_NEVER_WORKED}")

# A job that also lists an account that stays is still seen through that one, so it stays too.
_REMOVE_JOBS = text(
    """/* remove_leavers_jobs */
    DELETE FROM jobs j WHERE j.account_ids && CAST(:ids AS uuid[]) AND j.submitted_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM accounts k WHERE k.id = ANY(j.account_ids) AND NOT k.id = ANY(:ids))
    RETURNING id"""
)
# Their webhooks are still to be told.
_UNSETTLED = text(
    """SELECT DISTINCT unnest(j.account_ids) AS id FROM jobs j JOIN webhook_deliveries d ON d.job_id = j.id
       WHERE j.account_ids && CAST(:ids AS uuid[]) AND d.due_at IS NOT NULL"""
)
_LET_GO = text("UPDATE jobs SET account_id = NULL WHERE account_id = ANY(:ids)")
_REMOVE = text("DELETE FROM accounts WHERE id = ANY(:ids)")


def delete_unused(tx: Transaction, *, hours: int, limit: int) -> tuple[int, int]:
    """Remove one batch; how many accounts and how many jobs went."""
    values: dict[str, Any] = {"hours": hours}
    locked = [row.id for row in tx.all(_LOCK, {**values, "limit": limit})]
    ids: set[UUID] = {row.id for row in tx.all(_JUDGE, {**values, "ids": locked})} if locked else set()
    if ids:
        ids -= {row.id for row in tx.all(_UNSETTLED, {"ids": list(ids)})}
    if not ids:
        return 0, 0
    gone = tx.all(_REMOVE_JOBS, {"ids": list(ids)})
    tx.run(_LET_GO, {"ids": list(ids)})
    tx.run(_REMOVE, {"ids": list(ids)})
    return len(ids), len(gone)
