"""Deletes files of batches: those whose time is over, and those that their owner removed. Part of cleanup."""

from worker import storage
from worker.core.concurrency.watchdog import watchdog
from worker.db.batches import batch_files
from worker.db.engine import transaction

_FILES_PER_BATCH = 200


def delete_batch_files() -> int:
    """Delete some files. Return their number. Raises StorageError."""
    with transaction() as tx:
        batch_files.remove_expired(tx, limit=_FILES_PER_BATCH)
        found = batch_files.find_files_to_erase(tx, limit=_FILES_PER_BATCH)
    for row in found:
        watchdog.renew()
        storage.delete_file(row.key)
    if found:
        with transaction() as tx:
            batch_files.mark_erased(tx, [row.id for row in found])
    return len(found)
