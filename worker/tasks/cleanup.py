"""Deletes what is past its retention: idempotency records, unused session ids, files, timelines, deliveries, orphans.

Each part deletes in batches and may be interrupted anywhere: the next run continues. If the storage fails, only the
deletion of files waits for it. The rows of deleted files stay, so that their links can answer 410.
"""

from collections.abc import Callable

from worker import storage
from worker.core.observability import metrics
from worker.core.observability.logging import get_logger
from worker.core.watchdog import watchdog
from worker.db.accounts import session_checks, unused_cleanup
from worker.db.engine import transaction
from worker.db.jobs import idempotency, inputs
from worker.tasks.stages import expire_results, orphaned_files

log = get_logger("cleanup")

_BATCH = 200
# How long references are kept after their job has ended.
INPUT_HOURS = 24
# At least the lifetime of an idempotency key, so that a key never refers to a deleted job.
NEVER_WORKED_HOURS = idempotency.KEY_HOURS
# An answered check holds no secret any more, an open one an encrypted secret.
CHECK_MINUTES = 5
_SUMMARY = (
    "removed {files} files, {inputs} inputs, {orphans} orphans, {events} events, {deliveries} deliveries; "
    "removed {accounts} accounts that never worked with {jobs} jobs; forgot {requests} requests"
)


def clean_up() -> str:
    """Delete what is past its retention. Return a summary, which is also logged."""
    deleted: dict[str, int] = {}
    with transaction() as tx:
        deleted["requests"] = idempotency.delete_expired_requests(tx)
        session_checks.delete_old(tx, minutes=CHECK_MINUTES)
    # Before the unused accounts, whose deletion also removes the rows that name these files.
    deleted["inputs"] = _unless_storage_fails(lambda: expire_results.run_in_batches(_delete_input_batch, size=_BATCH))
    watchdog.renew()
    with transaction() as tx:
        deleted["accounts"], deleted["jobs"] = unused_cleanup.delete_unused(tx, hours=NEVER_WORKED_HOURS, limit=_BATCH)
    deleted["files"] = _unless_storage_fails(expire_results.delete_expired_files)
    deleted["deliveries"] = expire_results.delete_old_deliveries()
    deleted["events"] = expire_results.delete_old_events()
    deleted["orphans"] = _unless_storage_fails(orphaned_files.delete_orphans)
    for kind, number in deleted.items():
        if number:
            metrics.count("dreamery_removed", kind, by=number)
    if any(deleted.values()):
        log.info("upkeep", **deleted)
    return _SUMMARY.format(**deleted)


def _unless_storage_fails(delete: Callable[[], int]) -> int:
    try:
        return delete()
    except storage.StorageError as error:
        log.warning("upkeep_waits_for_storage", reason=error.reason)
        return 0


def _delete_input_batch() -> int:
    with transaction() as tx:
        old = inputs.expired_inputs(tx, hours=INPUT_HOURS, limit=_BATCH)
    # Jobs of one request share the files that the request contained.
    keys = sorted({row.key for row in old})
    for key in keys:
        watchdog.renew()
        storage.delete_file(key)
    if keys:
        with transaction() as tx:
            inputs.mark_inputs_removed(tx, keys)
    return len(keys)
