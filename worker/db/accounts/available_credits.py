"""Available credits of an account, computed in SQL from its rows. There is no counter that a crash could corrupt.

Upstream charges when it accepts a job, so a reading (`accounts.credits`, `credits_at`) includes all jobs accepted
before it. The available credits are the reading minus the actual or expected cost of jobs accepted since, minus the
reserved cost of jobs that are being submitted.
"""

from worker.core.job_state import FINAL, sql_list

# An older reading does not fail a job: the account is asked again first.
MAX_READING_AGE_SECONDS = 600

# The cost of an ended job. Upstream charges every job it accepts, so the price counts until the real charge is read
# (`settlement.settle`). A job that was certainly not accepted cost nothing. After an unclear submit it is unknown.
SET_CHARGED = "charged = coalesce(jobs.charged, jobs.price)"
_NOT_TAKEN = """(old.state IN ('held', 'queued', 'submitting') AND jobs.submitted_at IS NULL
            AND NOT coalesce(CAST(:code AS text) IN ('submit_unclear', 'stream_broken'), false))"""
SET_CHARGED_IF_TAKEN = f"""charged = CASE WHEN {_NOT_TAKEN} THEN 0 WHEN jobs.submitted_at IS NULL THEN jobs.charged
            ELSE coalesce(jobs.charged, jobs.price) END,
            settled_at = CASE WHEN {_NOT_TAKEN} THEN clock_timestamp() ELSE jobs.settled_at END"""


# Not `finished_at IS NOT NULL`, for which the planner would read the index of all finished jobs.
_ENDED = f"AND s.state IN {sql_list(FINAL)}"


def credits_left(account: str) -> str:
    """SQL: available credits of the account (table alias); NULL = unknown. Evaluate it after locking the account."""
    return f"({account}.credits - {_since(account)} - {reserved(account)})"


def reserved(account: str) -> str:
    """SQL: credits reserved for jobs that are being submitted."""
    return f"""coalesce((SELECT sum(r.price) FROM jobs r
        WHERE r.account_id = {account}.id AND r.holds_slot AND r.state = 'submitting'), 0)"""


def covers(left: str, price: str) -> str:
    """SQL: whether credits (an expression) cover a price; true if either is unknown."""
    return f"coalesce({left} >= {price}, true)"


def is_insufficient(account: str, price: str) -> str:
    """SQL: whether a recent reading shows that the account cannot pay, even if all open jobs were refunded."""
    return f"""coalesce({account}.credits_at > clock_timestamp() - interval '{MAX_READING_AGE_SECONDS} seconds'
        AND {account}.credits - {_since(account, _ENDED)} < {price}, false)"""


def _since(account: str, which: str = "") -> str:
    return f"""coalesce((SELECT sum(coalesce(s.charged, s.price)) FROM jobs s
        WHERE s.account_id = {account}.id AND s.submitted_at > {account}.credits_at {which}), 0)"""
