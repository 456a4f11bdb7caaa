"""Housekeeping: results older than RETENTION_DAYS lose their bytes; their rows stay and say so."""

from worker import storage
from worker.core.settings import get_settings
from worker.core.watchdog import watchdog
from worker.db import files
from worker.db.engine import transaction

_BATCH = 200


def upkeep() -> str:
    """Remove what is past its time; one batch a call."""
    days = get_settings().retention_days
    if days == 0:
        return "results are kept for ever"
    with transaction() as tx:
        old = files.expired_files(tx, days=days, limit=_BATCH)
    for row in old:
        watchdog.renew()
        storage.delete_file(row.key)
    if old:
        with transaction() as tx:
            files.note_removed(tx, [row.id for row in old])
    return f"removed {len(old)} files"
