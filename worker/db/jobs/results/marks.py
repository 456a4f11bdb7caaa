"""Favourites, pins and deletion of single results, by their owner.

A result is marked as its job is (`files.favourite` and `files.pinned` are NULL), until one result of the job is marked
by itself. A job with a favourite result is a favourite, one with a pinned result is pinned: indexes of jobs find both.
Each function locks the jobs first, so that it agrees with the retention and with deletions.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.db.engine import Transaction
from worker.db.jobs.queries import Viewer, visibility_condition

# Of files `f` and their jobs `j`.
FAVOURITE = "coalesce(f.favourite, j.favourite)"
PINNED = "coalesce(f.pinned, j.pinned_at IS NOT NULL)"

ResultRow = Row[Any]


def lock_results(tx: Transaction, viewer: Viewer, file_ids: Sequence[UUID]) -> list[ResultRow]:
    """Lock the jobs of these results and return `id`, `job_id`, `n`, `removed_at` and `deleted_at` of each.

    Files that do not exist, that are no results (thumbnails) or that the viewer may not see are absent.
    """
    visible, values = visibility_condition(viewer)
    ids = {"ids": list(file_ids)}
    locked = tx.all(
        text(
            f"""SELECT id FROM jobs WHERE id IN (SELECT job_id FROM files WHERE files.id = ANY(:ids))
                AND state = 'succeeded' AND {visible} ORDER BY id FOR NO KEY UPDATE"""
        ),
        {**values, **ids},
    )
    return tx.all(
        text(
            """SELECT id, job_id, n, removed_at, deleted_at FROM files
               WHERE id = ANY(:ids) AND variant = 'original' AND job_id = ANY(:jobs) ORDER BY job_id, n"""
        ),
        {**ids, "jobs": [row.id for row in locked]},
    )


def mark_job_favourite(tx: Transaction, job_id: UUID, *, favourite: bool) -> None:
    """Mark a job with all of its results, also those that it will have. The caller has checked who may see it."""
    values = {"id": job_id, "favourite": favourite}
    tx.run(
        text("UPDATE jobs SET favourite = :favourite, edited_at = clock_timestamp() WHERE id = :id"),
        values,
    )
    tx.run(text("UPDATE files SET favourite = NULL WHERE job_id = :id AND favourite IS NOT NULL"), values)


def mark_favourites(tx: Transaction, results: Sequence[ResultRow], *, favourite: bool) -> None:
    """Mark these results (rows of `lock_results`) as favourites, or not."""
    _separate_marks(tx, results, "favourite", FAVOURITE)
    _update_results(tx, results, "favourite = CAST(:favourite AS boolean)", {"favourite": favourite})
    _update_jobs(tx, results)


def pin_results(tx: Transaction, results: Sequence[ResultRow], *, pinned: bool) -> None:
    """Keep these results (rows of `lock_results`) beyond the retention, or not."""
    _separate_marks(tx, results, "pinned", PINNED)
    _update_results(tx, results, "pinned = CAST(:pinned AS boolean)", {"pinned": pinned})
    _update_jobs(tx, results)


def delete_results(tx: Transaction, results: Sequence[ResultRow]) -> list[Row[Any]]:
    """Delete these results (rows of `lock_results`); return `id` and `key` of the files whose bytes still exist.

    The jobs stay, with what they cost. Deleting twice changes nothing.
    """
    sets = """deleted_at = coalesce(f.deleted_at, clock_timestamp()),
              removed_at = coalesce(f.removed_at, clock_timestamp()), favourite = false, pinned = false"""
    _update_results(tx, results, sets, {})
    _update_jobs(tx, results)
    return tx.all(
        text(
            f"""SELECT f.id, f.key FROM files f JOIN {_CHOSEN} ON f.job_id = chosen.job_id AND f.n = chosen.n
                WHERE f.erased_at IS NULL"""
        ),
        _chosen_values(results),
    )


def count_pinned_jobs(tx: Transaction, results: Sequence[ResultRow]) -> int:
    """Return how many jobs with pinned results their owners have, if these results are pinned too."""
    row = tx.first(
        text(
            """SELECT count(*) AS n FROM (
                   SELECT id FROM jobs WHERE pinned_at IS NOT NULL AND deleted_at IS NULL
                       AND owner IN (SELECT owner FROM jobs o WHERE o.id = ANY(:jobs))
                   UNION SELECT unnest(CAST(:jobs AS uuid[]))) pinned"""
        ),
        {"jobs": _job_ids(results)},
    )
    return int(row.n) if row is not None else 0


def changed_results(tx: Transaction, results: Sequence[ResultRow]) -> list[Row[Any]]:
    """Return the marks of results as they are now, with what decides how long they are kept, in the same order."""
    return tx.all(
        text(
            f"""SELECT f.id, f.job_id, f.n, f.deleted_at, {FAVOURITE} AS favourite, {PINNED} AS pinned, j.finished_at,
                    j.state, j.event_seq,
                    (SELECT u.retention_days FROM users u WHERE u.id = j.user_id) AS retention_days
                FROM files f JOIN jobs j ON j.id = f.job_id WHERE f.id = ANY(:ids) ORDER BY f.job_id, f.n"""
        ),
        {"ids": [row.id for row in results]},
    )


_CHOSEN = "unnest(CAST(:jobs AS uuid[]), CAST(:numbers AS integer[])) AS chosen(job_id, n)"


def _chosen_values(results: Sequence[ResultRow]) -> dict[str, object]:
    return {"jobs": [row.job_id for row in results], "numbers": [row.n for row in results]}


def _job_ids(results: Sequence[ResultRow]) -> list[UUID]:
    return sorted({row.job_id for row in results})


def _separate_marks(tx: Transaction, results: Sequence[ResultRow], mark: str, value: str) -> None:
    """Give each file of the jobs the mark that it has through its job."""
    tx.run(
        text(
            f"""UPDATE files f SET {mark} = {value} FROM jobs j
                WHERE j.id = f.job_id AND j.id = ANY(:jobs) AND f.{mark} IS NULL"""
        ),
        {"jobs": _job_ids(results)},
    )


def _update_results(tx: Transaction, results: Sequence[ResultRow], sets: str, values: dict[str, object]) -> None:
    """Update the results with their variants."""
    statement = f"UPDATE files f SET {sets} FROM {_CHOSEN} WHERE f.job_id = chosen.job_id AND f.n = chosen.n"
    tx.run(text(statement), {**values, **_chosen_values(results)})


def _update_jobs(tx: Transaction, results: Sequence[ResultRow]) -> None:
    """Mark the jobs as their results are."""
    tx.run(
        text(
            f"""UPDATE jobs j SET edited_at = clock_timestamp(),
                    favourite = EXISTS (SELECT 1 FROM files f WHERE f.job_id = j.id AND {FAVOURITE}),
                    pinned_at = CASE WHEN EXISTS (SELECT 1 FROM files f WHERE f.job_id = j.id AND {PINNED})
                                THEN coalesce(j.pinned_at, now()) END
                WHERE id = ANY(:jobs)"""
        ),
        {"jobs": _job_ids(results)},
    )
