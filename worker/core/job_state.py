"""The states of a job, as in the column `jobs.state`, and the groups of states that code asks for.

The public API shows other words (`queued`, `in_progress`, `completed`, ...): see `api/jobs/serialization.py`.
"""

from collections.abc import Collection
from enum import StrEnum


class JobState(StrEnum):
    """The state of a job. `worker/db/jobs/state_machine.py` holds the transitions."""

    HELD = "held"
    QUEUED = "queued"
    SUBMITTING = "submitting"
    RUNNING = "running"
    SAVING = "saving"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


# `held` is before the queue: the job waits for its time, for its batch, for a limit of its key or for idle accounts. No
# account looks at it. `worker/db/batches/held_jobs.py` moves it to the queue and back.
OPEN = frozenset({JobState.QUEUED, JobState.SUBMITTING, JobState.RUNNING, JobState.SAVING})
FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
UNFINISHED = OPEN | {JobState.HELD}
UNSUCCESSFUL = FINAL - {JobState.SUCCEEDED}
# The job is upstream, or may be: it holds a slot of its account.
UPSTREAM = frozenset({JobState.SUBMITTING, JobState.RUNNING})


def sql_list(states: Collection[JobState]) -> str:
    """Return the states as an SQL list with parentheses, in the order of the enum: `('queued', 'running')`."""
    return "(" + ", ".join(f"'{state}'" for state in JobState if state in states) + ")"


def in_group(group: str, table: str = "jobs") -> str:
    """Return the SQL condition that a row of jobs belongs to the request with this id, an SQL expression."""
    first = f"{table}.id = {group} AND {table}.group_id = {table}.id"
    return f"(({first}) OR ({table}.group_id = {group} AND {table}.group_id <> {table}.id))"
