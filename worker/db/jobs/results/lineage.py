"""Where the inputs of jobs come from, and which jobs were made from a result."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.db.engine import Transaction
from worker.db.jobs.queries import Viewer, visibility_condition


def find_origins(tx: Transaction, file_ids: list[UUID], viewer: Viewer) -> dict[UUID, Row[Any]]:
    """Return `job_id`, `n` and `variant` of those results that belong to jobs which the viewer may see, by id."""
    if not file_ids:
        return {}
    condition, values = visibility_condition(viewer)
    rows = tx.all(
        text(
            f"""SELECT f.id, f.job_id, f.n, f.variant FROM files f
                WHERE f.id = ANY(:ids) AND f.job_id IN (SELECT id FROM jobs WHERE id = f.job_id AND {condition})"""
        ),
        {"ids": file_ids, **values},
    )
    return {row.id: row for row in rows}


def list_derived(tx: Transaction, job_id: UUID, viewer: Viewer, *, after: UUID | None, limit: int) -> list[Row[Any]]:
    """Return the jobs that have results of this job as inputs, newest first.

    Columns: `id`, `kind`, `model`, `state`, `prompt`, `created_at`, and `results` with the numbers of the results used.
    """
    condition, values = visibility_condition(viewer)
    return tx.all(
        text(
            f"""WITH used AS MATERIALIZED (
                    SELECT i.job_id AS id, array_agg(DISTINCT f.n ORDER BY f.n) AS results
                    FROM files f JOIN job_inputs i ON i.origin_file_id = f.id
                    WHERE f.job_id = :job AND (CAST(:after AS uuid) IS NULL OR i.job_id < :after) GROUP BY i.job_id)
                SELECT jobs.id, jobs.kind, jobs.model, jobs.state, jobs.params -> 'order' ->> 'prompt' AS prompt,
                    jobs.created_at, used.results
                FROM used JOIN jobs ON jobs.id = used.id WHERE jobs.id IN (
                    SELECT id FROM jobs WHERE id = used.id AND {condition})
                ORDER BY jobs.id DESC LIMIT :limit"""
        ),
        {"job": job_id, "after": after, "limit": limit, **values},
    )
