"""Recent activity and queue lengths for operators, read from the rows. Read-only."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text

from worker.core.ids import first_id_at
from worker.core.job_state import OPEN, sql_list
from worker.db.engine import Transaction


@dataclass(frozen=True, slots=True)
class Activity:
    """Ended jobs by hour, and refusals by upstream, both since the same time."""

    ended: list[Row[Any]]
    refusals: list[Row[Any]]


_ENDED = text(
    """/* activity_ended */
    SELECT date_trunc('hour', finished_at) AS hour, kind, state, error_code AS code, count(*) AS n FROM jobs
    WHERE id >= :floor AND finished_at >= :since GROUP BY 1, 2, 3, 4"""
)
# Refusals that the job recovered from: it returned to the queue for another account or a later attempt.
_REFUSALS = text(
    """/* activity_refusals */
    SELECT note ->> 'code' AS code, count(*) AS n FROM job_events
    WHERE job_id >= :floor AND at >= :since AND to_state = 'queued' AND note ? 'code' GROUP BY 1"""
)
_QUEUES = text(
    f"""/* activity_queues */
    SELECT kind, state, count(*) AS n, extract(epoch FROM clock_timestamp() - min(created_at)) AS oldest
    FROM jobs WHERE state IN {sql_list(OPEN)} GROUP BY kind, state"""
)


def read(tx: Transaction, *, since: datetime, oldest: datetime) -> Activity:
    """Return the activity since a time. `oldest`: jobs created earlier cannot have changed since then. Ids sort by
    time, so older rows are not read.
    """
    values = {"since": since, "floor": first_id_at(oldest)}
    return Activity(ended=tx.all(_ENDED, values), refusals=tx.all(_REFUSALS, values))


def queues(tx: Transaction) -> list[Row[Any]]:
    """Return open jobs by kind and state, with the age of the oldest in seconds."""
    return tx.all(_QUEUES)
