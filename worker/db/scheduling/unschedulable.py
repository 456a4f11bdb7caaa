"""Queued jobs that no account will take: which they are, and what their callers are told."""

from uuid import UUID

from sqlalchemy import text

from worker.db.accounts.available_credits import is_broke
from worker.db.accounts.eligibility import candidates
from worker.db.engine import Transaction

# A queued job whose every account rests for longer than this fails at once instead of waiting.
PATIENCE_SECONDS = 60.0

_REFUSAL = text(
    f"""/* refusal */
    SELECT bool_or(NOT (a.id = ANY(j.avoid_accounts)) AND a.state = 'ok' AND NOT coalesce(
               a.rest_until > clock_timestamp() + make_interval(secs => :patience), false)
               AND NOT {is_broke("a", "j.price")}) AS hope,
           bool_or(a.state = 'ok' AND {is_broke("a", "j.price")}) AS broke,
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


def hopeless(tx: Transaction, job_id: UUID) -> str | None:
    """The error code of a queued job that no account will take: each refused it, rests or lacks its price. None = there
    is hope.

    The code is the last refusal of this job, else why the longest-resting account rests, else what people must do, else
    that none of them has the credits.
    """
    row = tx.first(_REFUSAL, {"id": job_id, "patience": PATIENCE_SECONDS})
    if row is None or row.hope:
        return None
    idle = "accounts_need_login" if row.logged_out else "accounts_blocked" if row.blocked else "no_account_available"
    return str(row.last_code or row.rest_code or ("insufficient_quota" if row.broke else idle))


def stranded_jobs(tx: Transaction, *, limit: int) -> list[UUID]:
    """Queued jobs without any account that could take them soon."""
    rows = tx.all(
        text(
            f"""/* stranded_jobs */
            WITH waiting AS MATERIALIZED (
                SELECT id, user_id, account_ids, account_choice, avoid_accounts, price FROM jobs
                WHERE state = 'queued'),
            lines AS (SELECT DISTINCT user_id, account_ids, account_choice, avoid_accounts, price FROM waiting),
            stranded AS MATERIALIZED (SELECT * FROM lines j WHERE NOT EXISTS (
                SELECT 1 FROM {candidates("j")} WHERE a.id <> ALL(j.avoid_accounts) AND a.state = 'ok'
                  AND NOT {is_broke("a", "j.price")}
                  AND NOT coalesce(a.rest_until > clock_timestamp() + make_interval(secs => :patience), false)))
            SELECT w.id FROM waiting w JOIN stranded s ON s.account_ids = w.account_ids
                AND s.account_choice = w.account_choice AND s.avoid_accounts = w.avoid_accounts
                AND s.user_id IS NOT DISTINCT FROM w.user_id AND s.price IS NOT DISTINCT FROM w.price
            ORDER BY w.id LIMIT :limit"""
        ),
        {"patience": PATIENCE_SECONDS, "limit": limit},
    )
    return [row.id for row in rows]


# --- for `dreamery doctor` and health ---
