"""What is past its time: results, timelines, webhook deliveries. In batches, each finished by itself. Part of upkeep.

A file is first marked as removed, so that its link says 410 and a pin comes too late, and then loses its bytes; a crash
in between is made good by the next call.
"""

import time
from collections.abc import Callable

from worker import storage
from worker.core.settings import get_settings
from worker.core.watchdog import watchdog
from worker.db.engine import transaction
from worker.db.jobs import deletions, files, retention
from worker.db.webhooks import endpoints, outbox

FILES_PER_BATCH = 200
ROWS_PER_BATCH = 2000
# How long one kind of clean-up works at a time; the next upkeep goes on.
_MOST_SECONDS = 20.0
# How long session ids that made nothing keep their webhook endpoints.
UNPROVEN_DAYS = 7


def in_batches(remove: Callable[[], int], *, size: int) -> int:
    """Call it until a batch is not full or the time is over; how many it removed in all."""
    removed, until = 0, time.monotonic() + _MOST_SECONDS
    while True:
        watchdog.renew()
        count = remove()
        removed += count
        if count < size or time.monotonic() >= until:
            return removed


def results() -> int:
    """Files past their retention, and those of deleted jobs; how many lost their bytes. Raises StorageError."""

    def expire() -> int:
        with transaction() as tx:
            return retention.expire_files(tx, days=get_settings().retention_days, limit=FILES_PER_BATCH)

    in_batches(expire, size=FILES_PER_BATCH)
    return in_batches(_erase, size=FILES_PER_BATCH)


def _erase() -> int:
    with transaction() as tx:
        old = files.to_erase(tx, limit=FILES_PER_BATCH)
        old += deletions.deleted_files(tx, limit=FILES_PER_BATCH - len(old))
    for row in old:
        watchdog.renew()
        storage.delete_file(row.key)
    if old:
        with transaction() as tx:
            files.note_removed(tx, [row.id for row in old])
    return len(old)


def timelines() -> int:
    """Rows of the timelines of jobs that ended long ago; how many went."""
    days = get_settings().events_days

    def prune() -> int:
        with transaction() as tx:
            return retention.prune_events(tx, days=days, limit=ROWS_PER_BATCH)

    return in_batches(prune, size=ROWS_PER_BATCH) if days else 0


def webhooks() -> int:
    """Settled deliveries, and endpoints of session ids that made nothing; how many deliveries went."""
    with transaction() as tx:
        outbox.give_up_pending(tx)
        endpoints.remove_unproven(tx, days=UNPROVEN_DAYS)

    def settle() -> int:
        with transaction() as tx:
            return outbox.remove_settled(tx, days=get_settings().deliveries_days, limit=ROWS_PER_BATCH)

    return in_batches(settle, size=ROWS_PER_BATCH)
