"""What a sample reads from the rows: jobs that ended, open jobs, accounts, and the size of the database.

The cost does not grow with the number of jobs kept: each statement reads an index of what is open or has just ended.
"""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text

from worker.core.errors import ERRORS, Fault
from worker.core.job_state import JobState
from worker.core.observability.samples import BOUNDS, Measures
from worker.db.engine import Transaction
from worker.db.platform import gauges

_BOUNDS = "ARRAY[" + ", ".join(map(str, BOUNDS)) + "]::double precision[]"
# Nobody at the platform can help what a caller asked for.
_OF_CALLERS = frozenset({Fault.CONTENT, Fault.REQUEST})

# From `ix_jobs_finished_at`. A held job waited before the queue too, so its time in the queue is not known.
_ENDED = text(
    f"""/* sample_ended */
    WITH ended AS MATERIALIZED (
        SELECT state, error_code AS code, CASE WHEN currency IS NULL THEN charged END AS charged,
            CASE WHEN hold IS NULL THEN width_bucket(extract(epoch FROM submitted_at - created_at), {_BOUNDS}) END
                AS queue_wait,
            width_bucket(generation_seconds, {_BOUNDS}) AS generation,
            CASE WHEN state = 'succeeded' AND generation_seconds IS NOT NULL THEN width_bucket(greatest(
                extract(epoch FROM finished_at - submitted_at) - generation_seconds, 0), {_BOUNDS}) END AS save
        FROM jobs WHERE finished_at > to_timestamp(:since) AND finished_at <= to_timestamp(:until))
    SELECT 'state' AS what, state, code, NULL::integer AS bucket, count(*) AS n, coalesce(sum(charged), 0) AS charged
        FROM ended GROUP BY state, code
    UNION ALL SELECT 'queue_wait', NULL, NULL, queue_wait, count(*), 0
        FROM ended WHERE queue_wait IS NOT NULL GROUP BY 4
    UNION ALL SELECT 'generation', NULL, NULL, generation, count(*), 0
        FROM ended WHERE generation IS NOT NULL GROUP BY 4
    UNION ALL SELECT 'save', NULL, NULL, save, count(*), 0
        FROM ended WHERE save IS NOT NULL GROUP BY 4"""
)


def read_ended(tx: Transaction, *, since: float, until: float) -> Measures:
    """Return jobs that ended in this time (unix seconds) by state, what they cost, and how long they took."""
    found: Measures = dict.fromkeys(
        ("jobs_succeeded", "jobs_failed", "jobs_failed_by_us", "jobs_cancelled", "credits_spent"), 0
    )
    for row in tx.all(_ENDED, {"since": since, "until": until}):
        if row.what != "state":
            found.setdefault(row.what, [0] * (len(BOUNDS) + 1))[row.bucket] += row.n
            continue
        found[f"jobs_{row.state}"] += row.n
        found["credits_spent"] += int(row.charged)
        kind = ERRORS.get(row.code or "")
        if row.state == JobState.FAILED and (kind is None or kind.fault not in _OF_CALLERS):
            found["jobs_failed_by_us"] += row.n
    return found


@dataclass(frozen=True, slots=True)
class Levels:
    """How much there is now: the measures, and the open jobs and accounts that rules ask for."""

    measures: Measures = field(default_factory=dict)
    rows: gauges.Gauges | None = None


def read_levels(tx: Transaction) -> Levels:
    """Return open jobs, credits of usable platform accounts, and the size of the database."""
    size: Any = tx.all(text("SELECT pg_database_size(current_database()) AS bytes"))[0]
    rows = gauges.read(tx)
    waiting = [row for row in rows.open_jobs if row.state == JobState.QUEUED]
    usable = [row for row in rows.accounts if row.pool and row.state in {"ok", "resting"}]
    return Levels(
        measures={
            "jobs_waiting": sum(row.n for row in waiting),
            "jobs_running": sum(row.n for row in rows.open_jobs if row.state != JobState.QUEUED),
            "oldest_waiting_seconds": round(max((float(row.oldest) for row in waiting), default=0.0), 1),
            "credits_left": int(sum(row.credits for row in usable)),
            "accounts_usable": sum(row.n for row in usable if row.state == "ok"),
            "database_bytes": int(size.bytes),
        },
        rows=rows,
    )
