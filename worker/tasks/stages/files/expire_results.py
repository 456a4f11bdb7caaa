"""Deletes results, timelines and webhook deliveries past their retention, in committed batches. Part of cleanup.

A file is first marked as removed and then loses its bytes. From the mark on its link answers 410 and it can no longer
be pinned. After a crash in between, the next run deletes the bytes.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

from worker import storage
from worker.core.concurrency.watchdog import watchdog
from worker.core.settings import get_settings
from worker.db.engine import transaction
from worker.db.jobs import deletions, files, job_search, retention
from worker.db.users import result_counts
from worker.db.webhooks import endpoints, outbox

FILES_PER_BATCH = 200
ROWS_PER_BATCH = 2000
# Time limit of one kind of deletion; the next run continues.
_MAX_SECONDS = 20.0
# How long the webhook endpoints of a session id that never produced a result are kept.
UNPROVEN_DAYS = 7
# Sorts before every job id.
_NO_JOB = UUID(int=0)


def run_in_batches(delete_batch: Callable[[], int], *, size: int) -> int:
    """Call `delete_batch` until a batch is not full or the time limit is reached. Return the total it deleted."""
    deleted, until = 0, time.monotonic() + _MAX_SECONDS
    while True:
        watchdog.renew()
        count = delete_batch()
        deleted += count
        if count < size or time.monotonic() >= until:
            return deleted


def delete_expired_files() -> int:
    """Delete files past their retention and files of deleted jobs. Return their number. Raises StorageError."""

    with transaction() as tx:
        found = retention.find_retentions(tx, days=get_settings().retention_days)
    for each in found:
        _expire_files(each)
    return run_in_batches(_delete_file_batch, size=FILES_PER_BATCH)


def _expire_files(kept: retention.Retention) -> None:
    """Mark files as removed, oldest job first, until none is past the retention or the time limit is reached."""
    after: UUID | None = _NO_JOB
    until = time.monotonic() + _MAX_SECONDS
    while after is not None and time.monotonic() < until:
        watchdog.renew()
        with transaction() as tx:
            _, after = retention.expire_files(tx, kept, after=after, limit=FILES_PER_BATCH)


def _delete_file_batch() -> int:
    with transaction() as tx:
        rows = files.find_files_to_erase(tx, limit=FILES_PER_BATCH)
        rows += deletions.deleted_files(tx, limit=FILES_PER_BATCH - len(rows))
    for row in rows:
        watchdog.renew()
        storage.delete_file(row.key)
    if rows:
        with transaction() as tx:
            files.mark_removed(tx, [row.id for row in rows])
    return len(rows)


def delete_old_events() -> int:
    """Delete timeline rows of jobs that ended long ago. Return their number."""
    days = get_settings().timeline_retention_days

    def prune_batch() -> int:
        with transaction() as tx:
            return retention.prune_events(tx, days=days, limit=ROWS_PER_BATCH)

    return run_in_batches(prune_batch, size=ROWS_PER_BATCH) if days else 0


def copy_prompts() -> int:
    """Copy the prompts of jobs for the search. Return their number."""

    def copy_batch() -> int:
        with transaction() as tx:
            return job_search.copy_prompts(tx, now=datetime.now(UTC), limit=ROWS_PER_BATCH)

    return run_in_batches(copy_batch, size=ROWS_PER_BATCH)


def count_results() -> int:
    """Count the results of jobs that ended on an older version. Return the number of jobs."""

    def count_batch() -> int:
        with transaction() as tx:
            return result_counts.count_missing(tx, limit=ROWS_PER_BATCH)

    return run_in_batches(count_batch, size=ROWS_PER_BATCH)


def delete_old_deliveries() -> int:
    """Delete settled deliveries and the endpoints of unproven session ids. Return the number of deliveries."""
    with transaction() as tx:
        outbox.give_up_pending(tx)
        endpoints.delete_unproven(tx, days=UNPROVEN_DAYS)

    def delete_batch() -> int:
        with transaction() as tx:
            return outbox.delete_settled(tx, days=get_settings().webhook_delivery_retention_days, limit=ROWS_PER_BATCH)

    return run_in_batches(delete_batch, size=ROWS_PER_BATCH)
