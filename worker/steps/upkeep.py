"""Housekeeping: requests past their repeats, session ids that never worked, old results, inputs of ended jobs and the
log of webhooks leave.

Inputs that no job names leave too: the API stores them before it accepts their job, and may die in between.

The rows of removed files stay, so that a link can say so.
"""

from worker import storage
from worker.core.settings import get_settings
from worker.core.watchdog import watchdog
from worker.db import checks, deletions, deliveries, endpoints, files, inputs, leavers, requests
from worker.db.engine import transaction

_BATCH = 200
# How long references are kept after their job has ended; nothing reads them any more.
INPUT_HOURS = 24
# Longer than any request takes from storing its inputs to committing its jobs.
ORPHAN_HOURS = 24
_INPUTS = "inputs"
# Not shorter than the keys live: a key must never stand for a job that is gone.
NEVER_WORKED_HOURS = requests.KEY_HOURS
# An answered question holds no secret any more, an unanswered one a sealed one.
CHECK_MINUTES = 5
# How long webhook deliveries are kept after they were written, for the log and for replays.
DELIVERY_DAYS = 30
_DELIVERY_BATCH = 2000
# How long session ids that made nothing keep their webhook endpoints.
UNPROVEN_DAYS = 7


def upkeep() -> str:
    """Remove what is past its time; one batch a call."""
    with transaction() as tx:
        keys = requests.forget_requests(tx)
        checks.forget(tx, minutes=CHECK_MINUTES)
    # Before the accounts that never worked: with them go the rows that know where the bytes are.
    removed_inputs = _remove_inputs()
    watchdog.renew()
    with transaction() as tx:
        left, jobs = leavers.remove_never_worked(tx, hours=NEVER_WORKED_HOURS, limit=_BATCH)
    removed = _remove_files(get_settings().retention_days)
    told = _tidy_webhooks()
    orphans = _remove_orphans()
    gone = f"removed {left} accounts that never worked with {jobs} jobs"
    stored = f"removed {removed} files, {removed_inputs} inputs, {orphans} orphans"
    return f"forgot {keys} requests, {gone}, {stored}, {told} deliveries"


def _tidy_webhooks() -> int:
    with transaction() as tx:
        deliveries.give_up_pending(tx)
        endpoints.remove_unproven(tx, days=UNPROVEN_DAYS)
    with transaction() as tx:
        return deliveries.remove_settled(tx, days=DELIVERY_DAYS, limit=_DELIVERY_BATCH)


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


def _remove_orphans() -> int:
    """Bytes that were stored for a job which was never accepted, or whose rows are gone."""
    removed = 0
    for keys in storage.old_keys(_INPUTS, hours=ORPHAN_HOURS):
        watchdog.renew()
        with transaction() as tx:
            known = inputs.known_keys(tx, keys)
        for key in keys:
            if key not in known:
                watchdog.renew()
                storage.delete_file(key)
                removed += 1
        if removed >= _BATCH:
            break
    return removed


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
