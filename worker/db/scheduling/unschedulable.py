"""Queued jobs that no account will take, and the error code they fail with."""

from uuid import UUID

from sqlalchemy import text

from worker.db.accounts.available_credits import is_insufficient
from worker.db.accounts.eligibility import candidates
from worker.db.engine import Transaction

# A queued job fails at once instead of waiting if the cooldowns of all its accounts are longer than this.
LONGEST_COOLDOWN_SECONDS = 60.0

_REASON = text(
    f"""/* refusal */
    SELECT bool_or(NOT (a.id = ANY(j.avoid_accounts)) AND a.state = 'ok' AND NOT coalesce(
               a.rest_until > clock_timestamp() + make_interval(secs => :longest_cooldown), false)
               AND NOT {is_insufficient("a", "j.price")}) AS schedulable,
           bool_or(a.state = 'ok' AND {is_insufficient("a", "j.price")}) AS insufficient,
           (array_agg(a.rest_code ORDER BY a.rest_until DESC NULLS LAST)
               FILTER (WHERE a.state = 'ok' AND a.rest_until > clock_timestamp()))[1] AS rest_code,
           bool_and(a.state IN ('needs_login', 'blocked')) AND bool_or(a.state = 'needs_login') AS logged_out,
           bool_and(a.state = 'blocked') AS blocked,
           (SELECT e.note ->> 'code' FROM job_events e
            WHERE e.job_id = j.id AND e.note ? 'code' ORDER BY e.seq DESC LIMIT 1) AS last_code
    FROM jobs j
    LEFT JOIN {candidates("j")} ON a.state NOT IN ('paused', 'retired')
    WHERE j.id = :id AND j.state = 'queued' GROUP BY j.id"""
)


def unschedulable_reason(tx: Transaction, job_id: UUID) -> str | None:
    """Return the error code of a queued job that no account will take; None if some account will.

    Each account refused it, is in a long cooldown or lacks the credits. The code is that of the last refusal of this
    job, else of the longest cooldown, else `insufficient_quota`, else what the accounts need.
    """
    row = tx.first(_REASON, {"id": job_id, "longest_cooldown": LONGEST_COOLDOWN_SECONDS})
    if row is None or row.schedulable:
        return None
    idle = "accounts_need_login" if row.logged_out else "accounts_blocked" if row.blocked else "no_account_available"
    return str(row.last_code or row.rest_code or ("insufficient_quota" if row.insufficient else idle))


def find_unschedulable_jobs(tx: Transaction, *, limit: int) -> list[UUID]:
    """Return queued jobs that no account could take soon."""
    rows = tx.all(
        text(
            f"""/* unschedulable_jobs */
            WITH waiting AS MATERIALIZED (
                SELECT id, user_id, account_ids, account_choice, avoid_accounts, price FROM jobs
                WHERE state = 'queued'),
            groups AS (SELECT DISTINCT user_id, account_ids, account_choice, avoid_accounts, price FROM waiting),
            unschedulable AS MATERIALIZED (SELECT * FROM groups j WHERE NOT EXISTS (
                SELECT 1 FROM {candidates("j")} WHERE a.id <> ALL(j.avoid_accounts) AND a.state = 'ok'
                  AND NOT {is_insufficient("a", "j.price")}
                  AND NOT coalesce(a.rest_until > clock_timestamp() + make_interval(secs => :longest_cooldown), false)))
            SELECT w.id FROM waiting w JOIN unschedulable s ON s.account_ids = w.account_ids
                AND s.account_choice = w.account_choice AND s.avoid_accounts = w.avoid_accounts
                AND s.user_id IS NOT DISTINCT FROM w.user_id AND s.price IS NOT DISTINCT FROM w.price
            ORDER BY w.id LIMIT :limit"""
        ),
        {"longest_cooldown": LONGEST_COOLDOWN_SECONDS, "limit": limit},
    )
    return [row.id for row in rows]


# --- for `dreamery doctor` and health ---
