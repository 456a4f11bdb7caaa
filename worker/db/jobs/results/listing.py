"""The results of a caller's jobs, picture by picture, as pages of a gallery.

A page walks the caller's finished jobs by id, so its cost does not depend on how many there are. A filter that matches
little ends after `WINDOW` jobs, and the next page continues there.
"""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.db.engine import Transaction
from worker.db.jobs.job_search import JobFilter, filter_conditions
from worker.db.jobs.queries import Viewer, visibility_condition
from worker.db.jobs.results.marks import FAVOURITE, PINNED

# Jobs that one page looks at.
WINDOW = 10_000
# After all results of a job.
_LAST_NUMBER = 2**31 - 1
# How far a shape may be from the ratio, as a share of it: upstream rounds sizes to whole blocks.
_TOLERANCE = 0.03
MAX_PROMPT_CHARS = 500


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the order of the results: a job, and the number of a result in it."""

    job_id: UUID
    n: int


@dataclass(frozen=True, slots=True)
class ResultFilter:
    """The filters of a list of results; None = no filter."""

    jobs: JobFilter = field(default_factory=JobFilter)
    favourite: bool | None = None
    pinned: bool | None = None
    shape: str | None = None  # landscape, portrait or square
    ratio: tuple[int, int] | None = None  # width and height


@dataclass(frozen=True, slots=True)
class ResultPage:
    """A page of results; `next` = where the next page starts, None = this is the last one."""

    rows: list[Row[Any]]
    next: Position | None


_SHAPES = {
    "landscape": f"f.width > f.height * {1 + _TOLERANCE}",
    "portrait": f"f.height > f.width * {1 + _TOLERANCE}",
    "square": f"f.width BETWEEN f.height * {1 - _TOLERANCE} AND f.height * {1 + _TOLERANCE}",
}

# What a result shows of its job. The prompt is read only for the results of the page.
_COLUMNS = f"""f.id, f.job_id, f.n, f.mime, f.bytes, f.width, f.height, f.seconds, f.sha256, f.key,
    {FAVOURITE} AS favourite, {PINNED} AS pinned, j.kind, j.model, j.state, j.created_at, j.finished_at,
    left(coalesce(j.params -> 'order' ->> 'prompt', ''), {MAX_PROMPT_CHARS}) AS prompt,
    (SELECT u.retention_days FROM users u WHERE u.id = j.user_id) AS retention_days,
    (SELECT a.region FROM accounts a WHERE a.id = j.account_id) AS region,
    (SELECT t.id FROM files t WHERE t.job_id = f.job_id AND t.n = f.n AND t.variant = 'thumbnail') AS thumbnail_id"""


def list_results(
    tx: Transaction, viewer: Viewer, filters: ResultFilter, *, after: Position | None, limit: int, newest_first: bool
) -> ResultPage:
    """Return a page of the results that a caller may see, in the order of their jobs, then of their numbers."""
    compare, order = ("<", "DESC") if newest_first else (">", "ASC")
    jobs, values = _job_conditions(tx, viewer, filters)
    files, file_values = _file_conditions(filters)
    values |= file_values
    if after is not None:
        jobs.append(f"id {compare} :after_job" if after.n == _LAST_NUMBER else f"id {compare}= :after_job")
        files.append(f"(j.id {compare} :after_job OR f.n > :after_n)")
        values |= {"after_job": after.job_id, "after_n": after.n}
    walked = f"FROM jobs WHERE {' AND '.join(jobs)} ORDER BY id {order}"
    page = f"""SELECT f.id, f.job_id, f.n FROM (SELECT id, favourite, pinned_at {walked} LIMIT {WINDOW}) j
        JOIN files f ON f.job_id = j.id WHERE {" AND ".join(files)} ORDER BY j.id {order}, f.n LIMIT :limit"""
    found = tx.all(text(f"/* list_results */ {page}"), {**values, "limit": limit + 1})
    rows = _results(tx, [row.id for row in found[:limit]])
    if len(found) > limit:
        return ResultPage(rows, Position(found[limit - 1].job_id, found[limit - 1].n))
    edge = tx.first(text(f"/* end_of_results */ SELECT id {walked} OFFSET {WINDOW - 1} LIMIT 1"), values)
    return ResultPage(rows, None if edge is None else Position(edge.id, _LAST_NUMBER))


def _job_conditions(tx: Transaction, viewer: Viewer, filters: ResultFilter) -> tuple[list[str], dict[str, Any]]:
    """Return the conditions on a row of `jobs` and their values."""
    visible, values = visibility_condition(viewer)
    conditions, job_values = filter_conditions(tx, filters.jobs)
    jobs = [visible, "state = 'succeeded'", "kind <> 'chat'", *conditions]
    # Marked jobs have indexes of their own.
    jobs += ["favourite"] if filters.favourite else []
    jobs += ["pinned_at IS NOT NULL"] if filters.pinned else []
    return jobs, {**values, **job_values}


def _file_conditions(filters: ResultFilter) -> tuple[list[str], dict[str, Any]]:
    """Return the conditions on a file `f` of a job `j`, and their values."""
    conditions, values = ["f.variant = 'original'", "f.removed_at IS NULL"], dict[str, Any]()
    if filters.favourite is not None:
        conditions.append(FAVOURITE if filters.favourite else f"NOT {FAVOURITE}")
    if filters.pinned is not None:
        conditions.append(PINNED if filters.pinned else f"NOT {PINNED}")
    if filters.shape is not None:
        conditions.append(_SHAPES[filters.shape])
    if filters.ratio is not None:
        width, height = filters.ratio
        conditions.append("f.width BETWEEN f.height * CAST(:low AS float8) AND f.height * CAST(:high AS float8)")
        values |= {"low": width / height * (1 - _TOLERANCE), "high": width / height * (1 + _TOLERANCE)}
    return conditions, values


def _results(tx: Transaction, ids: list[UUID]) -> list[Row[Any]]:
    """Return results by id, in the order of the ids."""
    if not ids:
        return []
    statement = f"SELECT {_COLUMNS} FROM files f JOIN jobs j ON j.id = f.job_id WHERE f.id = ANY(:ids)"
    found = {row.id: row for row in tx.all(text(statement), {"ids": ids})}
    return [found[one] for one in ids if one in found]


def position_of(tx: Transaction, file_id: UUID) -> Position | None:
    """Return the place of a result, also of one that was deleted; None if it does not exist."""
    row = tx.first(text("SELECT job_id, n FROM files WHERE id = :id"), {"id": file_id})
    return None if row is None else Position(row.job_id, row.n)


def job_ids_of(tx: Transaction, file_ids: list[UUID]) -> list[UUID]:
    """Return the jobs of these files. Does not check the viewer."""
    rows = tx.all(text("SELECT DISTINCT job_id FROM files WHERE id = ANY(:ids)"), {"ids": file_ids})
    return [row.job_id for row in rows]
