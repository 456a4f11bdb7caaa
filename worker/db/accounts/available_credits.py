"""What an account can still spend, as SQL over its rows: no counter is kept, so a crash leaves nothing wrong.

Upstream charges when it takes a job, so a reading (`accounts.credits`, `credits_at`) holds every job taken before it.
Off it go the jobs taken since, at what they cost or are expected to cost, and the jobs on their way to upstream.
"""

# A reading that is older decides nothing for good: the account is asked again before a job is given up for it.
MAX_READING_AGE_SECONDS = 600

# What a job that ends did cost. Upstream charges what it takes, whatever becomes of it: its price, until upstream's own
# word is read (`charges.settle`). What surely was not taken cost nothing; of a submit whose effect nobody knows,
# nobody knows that either.
SET_CHARGED = "charged = coalesce(jobs.charged, jobs.price)"
_NOT_TAKEN = """(old.state IN ('queued', 'submitting') AND jobs.submitted_at IS NULL
            AND NOT coalesce(CAST(:code AS text) IN ('submit_unclear', 'stream_broken'), false))"""
SET_CHARGED_IF_TAKEN = f"""charged = CASE WHEN {_NOT_TAKEN} THEN 0 WHEN jobs.submitted_at IS NULL THEN jobs.charged
            ELSE coalesce(jobs.charged, jobs.price) END,
            settled_at = CASE WHEN {_NOT_TAKEN} THEN clock_timestamp() ELSE jobs.settled_at END"""


def credits_left(account: str) -> str:
    """SQL: what the account (table alias) can still spend; NULL = not known. Count it after locking the account."""
    return f"({account}.credits - {_since(account)} - {reserved(account)})"


def reserved(account: str) -> str:
    """SQL: credits held for jobs whose submit is under way, that is, not accepted and not refused yet."""
    return f"""coalesce((SELECT sum(r.price) FROM jobs r
        WHERE r.account_id = {account}.id AND r.holds_slot AND r.state = 'submitting'), 0)"""


def covers(left: str, price: str) -> str:
    """SQL: whether credits (an expression) cover a price; what is not known never stands in the way."""
    return f"coalesce({left} >= {price}, true)"


def is_insufficient(account: str, price: str) -> str:
    """SQL: whether the account surely has not the price: told of late, even if all that is open were given back."""
    return f"""coalesce({account}.credits_at > clock_timestamp() - interval '{MAX_READING_AGE_SECONDS} seconds'
        AND {account}.credits - {_since(account, "AND s.finished_at IS NOT NULL")} < {price}, false)"""


def _since(account: str, which: str = "") -> str:
    return f"""coalesce((SELECT sum(coalesce(s.charged, s.price)) FROM jobs s
        WHERE s.account_id = {account}.id AND s.submitted_at > {account}.credits_at {which}), 0)"""
