"""Deletes accounts of session ids that never worked, with the jobs that only they could have run, after a day.

Invented session ids create a row with each accepted job, so without this cleanup they could fill the database. Their
jobs were never accepted upstream and cost nothing, so nothing of value is lost.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import text

from worker.core.job_state import OPEN, sql_list
from worker.db.accounts.eligibility import names_one_of
from worker.db.engine import Transaction

_OPEN = sql_list(OPEN)
_NAMED = names_one_of("j.account_ids", "CAST(:ids AS uuid[])")
_NEVER_WORKED = f"""NOT a.pool AND a.user_id IS NULL AND a.state = 'ok'
    AND greatest(a.created_at, a.last_submit_at) < clock_timestamp() - make_interval(hours => :hours)
    AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.account_id = a.id
                    AND (j.submitted_at IS NOT NULL OR NOT j.account_ids @> ARRAY[a.id]))
    AND NOT EXISTS (SELECT 1 FROM jobs j WHERE {names_one_of("j.account_ids", "ARRAY[a.id]")}
                    AND (j.state IN {_OPEN} OR j.holds_slot
                         OR j.finished_at > clock_timestamp() - make_interval(hours => :hours)))"""

# Locked before the check: a request that found such a row locks it until its job is committed (see
# `accounts.lock_tokens`) and is skipped here; a later request waits and then inserts a new row.
_LOCK = text(
    f"""/* lock_unused_accounts */ SELECT a.id FROM accounts a WHERE {_NEVER_WORKED}
        ORDER BY a.id LIMIT :limit FOR UPDATE OF a SKIP LOCKED"""
)
# A separate statement: the locking statement may have used an older snapshot.
_RECHECK = text(f"SELECT a.id FROM accounts a WHERE a.id = ANY(:ids) AND {_NEVER_WORKED}")

# A job that also lists a remaining account is still visible through it, so it stays.
_DELETE_JOBS = text(
    f"""/* delete_jobs_of_unused_accounts */
    DELETE FROM jobs j WHERE {_NAMED} AND j.submitted_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM accounts k WHERE k.id = ANY(j.account_ids) AND NOT k.id = ANY(:ids))
    RETURNING id"""
)
# Accounts whose jobs have pending webhook deliveries.
_WITH_PENDING_WEBHOOKS = text(
    f"""SELECT DISTINCT unnest(j.account_ids) AS id FROM jobs j JOIN webhook_deliveries d ON d.job_id = j.id
       WHERE {_NAMED} AND d.due_at IS NOT NULL"""
)
_DETACH_JOBS = text("UPDATE jobs SET account_id = NULL WHERE account_id = ANY(:ids)")
_DELETE = text("DELETE FROM accounts WHERE id = ANY(:ids)")


def delete_unused(tx: Transaction, *, hours: int, limit: int) -> tuple[int, int]:
    """Delete one batch. Return the number of deleted accounts and jobs."""
    values: dict[str, Any] = {"hours": hours}
    locked = [row.id for row in tx.all(_LOCK, {**values, "limit": limit})]
    ids: set[UUID] = {row.id for row in tx.all(_RECHECK, {**values, "ids": locked})} if locked else set()
    if ids:
        ids -= {row.id for row in tx.all(_WITH_PENDING_WEBHOOKS, {"ids": list(ids)})}
    if not ids:
        return 0, 0
    deleted_jobs = tx.all(_DELETE_JOBS, {"ids": list(ids)})
    tx.run(_DETACH_JOBS, {"ids": list(ids)})
    tx.run(_DELETE, {"ids": list(ids)})
    return len(ids), len(deleted_jobs)
