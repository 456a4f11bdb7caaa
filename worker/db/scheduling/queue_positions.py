"""Positions in the queue: how many waiting jobs come before a job that may take an account which it needs.

Jobs without named accounts compete with each other, but those that only use their user's own accounts only with jobs of
that user. Jobs with named accounts compete with those that name one of the same.

The cost does not depend on how many jobs wait. The front of the queue is read once for all jobs that are asked about.
What is behind it, and shares its accounts with few others, is counted by lines (`worker.db.accounts.queue_lines`).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from worker.db.accounts.queue_lines import in_line, line_heads, queue_order
from worker.db.engine import Transaction

# A position is counted up to this many jobs ahead; a job further behind has the next number.
MOST_AHEAD = 1000
# So many jobs of a kind are the front of its queue. In a long queue most of them have no named accounts.
_FRONT = 2 * MOST_AHEAD
# The last place of all jobs with the same one.
_LAST_ID = UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that waits, or one that could: its place, and what decides which accounts it may use."""

    id: UUID
    kind: str
    place: float
    account_ids: Sequence[UUID]
    user_id: UUID | None
    account_choice: str

    @property
    def rivals(self) -> tuple[object, ...]:
        """Equal for jobs that compete with the same others."""
        return self.kind, tuple(self.account_ids), self.user_id, self.account_choice == "own"

    @property
    def order(self) -> tuple[float, UUID]:
        """Where it is in the queue of its kind."""
        return self.place, self.id


_ASKED = """w AS MATERIALIZED (
    SELECT *, account_choice = 'own' AS own FROM jsonb_to_recordset(CAST(:jobs AS jsonb)) AS asked (
        id uuid, kind text, place float8, account_ids uuid[], user_id uuid, account_choice text))"""
_COMPETE = """(o.account_ids && w.account_ids OR (o.account_ids = '{}' AND w.account_ids = '{}' AND (
    (o.account_choice <> 'own' AND NOT w.own) OR o.user_id IS NOT DISTINCT FROM w.user_id)))"""
# `OFFSET 0` keeps the walk in the order of `ix_jobs_queue`: the planner would rather read and sort the whole queue.
# `ahead` is exact for jobs in the front. Most others have the whole front ahead, which is known without comparing.
_IN_FRONT = text(
    f"""/* queue_position */
    WITH {_ASKED},
    kinds AS MATERIALIZED (SELECT kind, max(place) AS place FROM w GROUP BY kind),
    front AS MATERIALIZED (
        SELECT k.kind, o.* FROM kinds k CROSS JOIN LATERAL (
            SELECT id, place, account_ids, user_id, account_choice FROM jobs
            WHERE state = 'queued' AND kind = k.kind AND place <= k.place
            ORDER BY place, id OFFSET 0 LIMIT {_FRONT}) o),
    ends AS MATERIALIZED (
        SELECT kind, count(*) AS jobs, max(place) AS place,
            count(*) FILTER (WHERE account_ids = '{{}}' AND account_choice <> 'own') AS shared
        FROM front GROUP BY kind)
    SELECT w.id, f.whole, CASE
        WHEN NOT f.whole AND w.account_ids = '{{}}' AND NOT w.own AND e.shared >= {MOST_AHEAD} THEN {MOST_AHEAD}
        ELSE (SELECT count(*) FROM front o
              WHERE o.kind = w.kind AND (o.place, o.id) < (w.place, w.id) AND {_COMPETE}) END AS ahead
    FROM w LEFT JOIN ends e ON e.kind = w.kind
    CROSS JOIN LATERAL (SELECT coalesce(e.jobs < {_FRONT} OR w.place < e.place, true) AS whole) f"""
)
_IN_LINES = text(
    f"""/* queue_position_by_lines */
    WITH RECURSIVE {line_heads("lines", "CAST(:kinds AS text[])")}, {_ASKED}
    SELECT w.id, (SELECT count(*) FROM (
        SELECT 1 FROM lines o CROSS JOIN LATERAL (
            SELECT 1 FROM jobs WHERE {in_line("o")} AND (place, id) < (w.place, w.id)) j
        WHERE o.kind = w.kind AND {_COMPETE} LIMIT {MOST_AHEAD}) counted) AS ahead
    FROM w"""
)


def find_positions(tx: Transaction, jobs: Sequence[Waiting]) -> dict[UUID, int]:
    """Return the position of each job by its id: 1 = next, `MOST_AHEAD` + 1 = there or further behind."""
    if not jobs:
        return {}
    with queue_order(tx):
        rows = tx.all(_IN_FRONT, _values(jobs))
        ahead = {row.id: int(row.ahead) for row in rows}
        exact = {row.id for row in rows if row.whole or row.ahead >= MOST_AHEAD}
        behind = sorted((job for job in jobs if job.id not in exact), key=lambda job: job.order)
        first = {job.rivals: job for job in reversed(behind)}
        ahead |= _count_by_lines(tx, first.values())
        # Where the first one has enough ahead, the others have.
        ahead |= {job.id: MOST_AHEAD for job in behind if ahead[first[job.rivals].id] >= MOST_AHEAD}
        others = [job for job in behind if job is not first[job.rivals] and ahead[first[job.rivals].id] < MOST_AHEAD]
        ahead |= _count_by_lines(tx, others)
    return {job_id: min(count, MOST_AHEAD) + 1 for job_id, count in ahead.items()}


def last_of(kind: str, place: float, *, account_ids: Sequence[UUID], user_id: UUID | None, choice: str) -> Waiting:
    """Return a job that does not exist yet, behind all that have its place."""
    return Waiting(_LAST_ID, kind, place, account_ids, user_id, choice)


def _count_by_lines(tx: Transaction, jobs: Iterable[Waiting]) -> dict[UUID, int]:
    values = _values(jobs)
    if not values["kinds"]:
        return {}
    return {row.id: int(row.ahead) for row in tx.all(_IN_LINES, values)}


def _values(jobs: Iterable[Waiting]) -> dict[str, Any]:
    chosen = list(jobs)
    return {
        "jobs": json.dumps([asdict(job) for job in chosen], default=str),
        "kinds": sorted({job.kind for job in chosen}),
    }
