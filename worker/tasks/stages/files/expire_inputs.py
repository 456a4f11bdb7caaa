"""Deletes inputs of jobs past the retention of their results, in committed batches. Part of cleanup.

The bytes go first, then the rows say so: after a crash in between, the next run deletes the same bytes again.
"""

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

from worker import storage
from worker.core.concurrency.watchdog import watchdog
from worker.core.ids import first_id_at
from worker.core.settings import get_settings
from worker.db.engine import transaction
from worker.db.jobs import inputs, retention

# The shortest time that inputs are kept after their job has ended, so that it can be run again.
INPUT_HOURS = 24
_BATCH = 200
# Time limit of one run; the next run continues.
_MAX_SECONDS = 20.0
# Sorts before every job id.
_NO_JOB = UUID(int=0)


def delete_expired_inputs() -> int:
    """Delete inputs of deleted jobs, and those past the retention of their jobs. Return the number of files."""
    days, until = get_settings().retention_days, time.monotonic() + _MAX_SECONDS
    deleted, full = 0, True
    while full and time.monotonic() < until:
        with transaction() as tx:
            keys = inputs.inputs_of_deleted_jobs(tx, days=days, hours=INPUT_HOURS, limit=_BATCH)
        deleted += _delete(keys)
        full = len(keys) == _BATCH
    with transaction() as tx:
        kept = retention.find_retentions(tx, days=days)
    if not kept:
        return deleted
    # Ids are times: a younger job cannot be past any retention.
    before = first_id_at(datetime.now(UTC) - timedelta(days=min(one.days for one in kept)))
    after: UUID | None = _NO_JOB
    while after is not None and time.monotonic() < until:
        with transaction() as tx:
            keys, after = inputs.expired_inputs(tx, days=days, hours=INPUT_HOURS, after=after, before=before)
        deleted += _delete(keys)
    return deleted


def _delete(keys: list[str]) -> int:
    for key in keys:
        watchdog.renew()
        storage.delete_file(key)
    if keys:
        with transaction() as tx:
            inputs.mark_inputs_removed(tx, keys)
    return len(keys)
