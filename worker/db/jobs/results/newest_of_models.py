"""The newest finished job of each model among a viewer's last jobs: its result is the sample of the model."""

from sqlalchemy import text

from worker.db.engine import Transaction
from worker.db.jobs.queries import JobView, Viewer, group_views, visibility_condition

# Samples are taken from so many of the newest jobs, so that a long history costs no more than a short one.
_NEWEST_JOBS = 300


def newest_jobs_of_models(tx: Transaction, viewer: Viewer) -> list[JobView]:
    """Return the newest finished image or video job of each model, among the newest jobs of the viewer."""
    condition, values = visibility_condition(viewer)
    rows = tx.all(
        text(
            f"""/* samples_of_models */
            SELECT DISTINCT ON (model) id FROM (
                SELECT id, model FROM jobs WHERE {condition} AND state = 'succeeded' AND kind <> 'chat'
                ORDER BY id DESC LIMIT {_NEWEST_JOBS}) newest
            ORDER BY model, id DESC"""
        ),
        values,
    )
    return group_views(tx, [row.id for row in rows]) if rows else []
