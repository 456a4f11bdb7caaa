"""Housekeeping: requests past their repeats, session ids that never worked, what is past its time, stray bytes.

Each part removes in batches and may be cut off anywhere: the next call goes on. What storage refuses waits for it; rows
go on. The rows of removed files stay, so that a link can say so.
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

log = get_logger("upkeep")

_BATCH = 200
# How long references are kept after their job has ended; nothing reads them any more.
INPUT_HOURS = 24
# Not shorter than the keys live: a key must never stand for a job that is gone.
NEVER_WORKED_HOURS = idempotency.KEY_HOURS
# An answered question holds no secret any more, an unanswered one a sealed one.
CHECK_MINUTES = 5
_IN_WORDS = (
    "removed {files} files, {inputs} inputs, {orphans} orphans, {events} events, {deliveries} deliveries; "
    "removed {accounts} accounts that never worked with {jobs} jobs; forgot {requests} requests"
)


def upkeep() -> str:
    """Remove what is past its time; what went, in words, and as one line of the log."""
    gone: dict[str, int] = {}
    with transaction() as tx:
        gone["requests"] = idempotency.forget_requests(tx)
        session_checks.forget(tx, minutes=CHECK_MINUTES)
    # Before the accounts that never worked: with them go the rows that know where the bytes are.
    gone["inputs"] = _if_stored(lambda: expire_results.in_batches(_remove_inputs, size=_BATCH))
    watchdog.renew()
    with transaction() as tx:
        gone["accounts"], gone["jobs"] = unused_cleanup.remove_never_worked(tx, hours=NEVER_WORKED_HOURS, limit=_BATCH)
    gone["files"] = _if_stored(expire_results.results)
    gone["deliveries"] = expire_results.webhooks()
    gone["events"] = expire_results.timelines()
    gone["orphans"] = _if_stored(orphaned_files.remove_strays)
    for what, number in gone.items():
        if number:
            metrics.count("dreamery_removed", what, by=number)
    if any(gone.values()):
        log.info("upkeep", **gone)
    return _IN_WORDS.format(**gone)


def _if_stored(remove: Callable[[], int]) -> int:
    try:
        return remove()
    except storage.StorageError as error:
        log.warning("upkeep_waits_for_storage", reason=error.reason)
        return 0


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
