"""Current row counts for the metrics endpoint. Read-only."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, text

from worker.core.job_state import OPEN, sql_list
from worker.db.engine import Transaction


@dataclass(frozen=True, slots=True)
class Gauges:
    """Open jobs with the age of the oldest, accounts by region and state, and pending webhook deliveries."""

    open_jobs: list[Row[Any]]
    accounts: list[Row[Any]]
    webhooks: int


# From `ix_jobs_open` alone, so that the wide rows of waiting jobs are not read.
_OPEN_JOBS = text(
    f"""/* gauge_jobs */
    SELECT kind, model, state, count(*) AS n, extract(epoch FROM clock_timestamp() - min(created_at)) AS oldest
    FROM jobs WHERE state IN {sql_list(OPEN)} GROUP BY kind, model, state"""
)
_ACCOUNTS = text(
    """/* gauge_accounts */
    SELECT region, pool,
           CASE WHEN state = 'ok' AND rest_until > clock_timestamp() THEN 'resting' ELSE state END AS state,
           count(*) AS n, coalesce(sum(credits), 0) AS credits
    FROM accounts GROUP BY 1, 2, 3"""
)


def read(tx: Transaction) -> Gauges:
    """Read all gauges in one transaction."""
    waiting = tx.first(text("SELECT count(*) AS n FROM webhook_deliveries WHERE due_at IS NOT NULL"))
    # The planner prefers the rows to the wider index that makes them unnecessary.
    tx.run(text("SET LOCAL enable_bitmapscan = off"))
    return Gauges(
        open_jobs=tx.all(_OPEN_JOBS),
        accounts=tx.all(_ACCOUNTS),
        webhooks=int(waiting.n) if waiting is not None else 0,
    )
