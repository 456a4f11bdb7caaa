"""Housekeeping: old Idempotency-Keys, session ids that never worked, old results and inputs of ended jobs leave.

The rows of removed files stay, so that a link can say so.
"""

from worker import storage
from worker.core.settings import get_settings
from worker.core.watchdog import watchdog
from worker.db import deletions, files, inputs, leavers, requests
from worker.db.engine import transaction

_BATCH = 200
# How long a repeat with the same key is a repeat (draft-ietf-httpapi-idempotency-key-header).
KEY_HOURS = 24
# How long references are kept after their job has ended; nothing reads them any more.
INPUT_HOURS = 24
# Not shorter than the keys live: a key must never stand for a job that is gone.
NEVER_WORKED_HOURS = 24


def upkeep() -> str:
    """Remove what is past its time; one batch a call."""
    with transaction() as tx:
        keys = requests.forget_requests(tx, hours=KEY_HOURS)
    # Before the accounts that never worked: with them go the rows that know where the bytes are.
    removed_inputs = _remove_inputs()
    watchdog.renew()
    with transaction() as tx:
        left, jobs = leavers.remove_never_worked(tx, hours=NEVER_WORKED_HOURS, limit=_BATCH)
    removed = _remove_files(get_settings().retention_days)
    gone = f"removed {left} accounts that never worked with {jobs} jobs"
    return f"forgot {keys} keys, {gone}, removed {removed} files, {removed_inputs} inputs"


def _remove_inputs() -> int:
    with transaction() as tx:
        old = inputs.expired_inputs(tx, hours=INPUT_HOURS, limit=_BATCH)
    # Jobs of one request share what their caller sent along.
    keys = sorted({row.key for row in old})
    for key in keys:
        watchdog.renew()
        storage.delete_file(key)
    if keys:
        with transaction() as tx:
            inputs.note_inputs_removed(tx, keys)
    return len(keys)


def _remove_files(days: int) -> int:
    with transaction() as tx:
        old = deletions.deleted_files(tx, limit=_BATCH)
        old += files.expired_files(tx, days=days, limit=_BATCH) if days else []
    for row in old:
        watchdog.renew()
        storage.delete_file(row.key)
    if old:
        with transaction() as tx:
            files.note_removed(tx, [row.id for row in old])
    return len(old)
