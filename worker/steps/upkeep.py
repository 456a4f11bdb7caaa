"""Housekeeping: old Idempotency-Keys and session ids that never worked leave, old results lose their bytes.

The rows of removed files stay, so that a link can say so.
"""

from worker import storage
from worker.core.settings import get_settings
from worker.core.watchdog import watchdog
from worker.db import files, leavers, requests
from worker.db.engine import transaction

_BATCH = 200
# How long a repeat with the same key is a repeat (draft-ietf-httpapi-idempotency-key-header).
KEY_HOURS = 24
# Not shorter than the keys live: a key must never stand for a job that is gone.
NEVER_WORKED_HOURS = 24


def upkeep() -> str:
    """Remove what is past its time; one batch a call."""
    with transaction() as tx:
        keys = requests.forget_requests(tx, hours=KEY_HOURS)
    watchdog.renew()
    with transaction() as tx:
        left, jobs = leavers.remove_never_worked(tx, hours=NEVER_WORKED_HOURS, limit=_BATCH)
    gone = f"removed {left} accounts that never worked with {jobs} jobs"
    return f"forgot {keys} keys, {gone}, removed {_remove_files(get_settings().retention_days)} files"


def _remove_files(days: int) -> int:
    if days == 0:
        return 0
    with transaction() as tx:
        old = files.expired_files(tx, days=days, limit=_BATCH)
    for row in old:
        watchdog.renew()
        storage.delete_file(row.key)
    if old:
        with transaction() as tx:
            files.note_removed(tx, [row.id for row in old])
    return len(old)
