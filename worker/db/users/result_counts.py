"""Number and length of a job's results on its row, from which usage is reported without reading a million files.

A job gets them when it succeeds. Jobs that succeeded before the columns existed, or on a process of an older version
during an upgrade, are counted by the clean-up; until then usage counts their files.
"""

from sqlalchemy import text

from worker.db.engine import Transaction

# Part of the UPDATE that ends a job, after its files were inserted. Rows of deleted files stay, so this never changes.
SET_RESULT_COUNTS = """(result_count, result_seconds) = (SELECT count(*), sum(f.seconds) FROM files f
                WHERE f.job_id = jobs.id AND f.variant = 'original')"""


# Of `ix_jobs_uncounted`, which is empty in the long run.
UNCOUNTED = "state = 'succeeded' AND result_count IS NULL AND kind <> 'chat'"

_COUNT = text(
    f"""/* count_results */
    WITH batch AS MATERIALIZED (
        SELECT id FROM jobs WHERE {UNCOUNTED} ORDER BY id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE jobs SET {SET_RESULT_COUNTS} FROM batch
    WHERE jobs.id = batch.id AND jobs.result_count IS NULL RETURNING jobs.id"""
)


def all_are_counted(tx: Transaction) -> bool:
    """Return whether each job with results has their counts."""
    return tx.first(text(f"SELECT 1 FROM jobs WHERE {UNCOUNTED} LIMIT 1")) is None


def count_missing(tx: Transaction, *, limit: int) -> int:
    """Count the results of the next jobs without counts; return how many."""
    return len(tx.all(_COUNT, {"limit": limit}))
