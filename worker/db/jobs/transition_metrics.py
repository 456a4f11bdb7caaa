"""Metrics of state changes. `state_machine.py` records every change; it is counted after the commit."""

from functools import partial
from typing import Any

from sqlalchemy import Row

from worker.core.errors import ERRORS
from worker.core.job_state import FINAL, JobState
from worker.core.observability import metrics
from worker.db.engine import Transaction

# Columns that the row of a change needs in addition to the state.
COLUMNS = """jobs.kind, jobs.model, jobs.error_code,
    CASE WHEN jobs.hold IS NULL THEN extract(epoch FROM jobs.submitted_at - jobs.created_at) END AS waited_seconds,
    extract(epoch FROM jobs.finished_at - jobs.submitted_at) AS ran_seconds"""


def record_transition(tx: Transaction, row: Row[Any]) -> None:
    """Count a job that upstream accepted or that ended, after the commit."""
    if row.state == JobState.RUNNING and row.waited_seconds is not None:
        waited = max(float(row.waited_seconds), 0.0)
        tx.on_commit(partial(metrics.observe, "dreamery_job_wait_seconds", waited, row.kind))
    if row.ran_seconds is not None:
        ran = max(float(row.ran_seconds), 0.0)
        tx.on_commit(partial(metrics.observe, "dreamery_job_run_seconds", ran, row.kind, row.model))
    if row.state in FINAL:
        code = row.error_code or ""
        outcome = outcome_of(row.state, code)
        tx.on_commit(partial(metrics.count, "dreamery_jobs_ended", row.kind, row.model, row.state, code, outcome))


def outcome_of(state: str, code: str) -> str:
    """Return how a job ended: the fault of a failure (`Fault`), else the final state."""
    return str(ERRORS[code].fault) if state == JobState.FAILED and code in ERRORS else state
