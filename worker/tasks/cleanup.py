"""Deletes what is past its retention: idempotency records, unused session ids, files, timelines, deliveries, orphans.

Each part deletes in batches and may be interrupted anywhere: the next run continues. If the storage fails, only the
deletion of files waits for it. The rows of deleted files stay, so that their links can answer 410.
"""

from collections.abc import Callable

from worker import storage
from worker.core.concurrency.watchdog import watchdog
from worker.core.observability import metrics
from worker.core.observability.faults import UnexpectedError
from worker.core.observability.logging import get_logger
from worker.db.accounts import list_pace, session_checks, unused_cleanup
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, transaction
from worker.db.jobs import idempotency
from worker.db.monitoring import alerts
from worker.tasks.stages.files import expire_batch_files, expire_inputs, expire_results, orphaned_files

log = get_logger("cleanup")

_BATCH = 200
# At least the lifetime of an idempotency key, so that a key never refers to a deleted job.
NEVER_WORKED_HOURS = idempotency.KEY_HOURS
# An answered check holds no secret any more, an open one an encrypted secret.
CHECK_MINUTES = 5
_SUMMARY = (
    "removed {files} files, {inputs} inputs, {orphans} orphans, {events} events, {deliveries} deliveries; "
    "removed {accounts} accounts that never worked with {jobs} jobs; forgot {requests} requests"
)


def clean_up() -> str:
    """Delete what is past its retention. Return a summary, which is also logged.

    A part that fails, for example because its statement times out, does not stop the others. Raises the first error
    after the last part.
    """
    deleted: dict[str, int] = {}
    errors: list[Exception] = []
    for kinds, delete in _PARTS:
        watchdog.renew()
        try:
            deleted |= dict(zip(kinds, delete(), strict=True))
        except storage.StorageError as error:
            log.warning("upkeep_waits_for_storage", reason=error.reason)
            deleted |= dict.fromkeys(kinds, 0)
        except DATABASE_UNAVAILABLE_ERRORS as error:
            log.warning("upkeep_part_failed", part=kinds[0], reason=type(error).__name__)
            deleted |= dict.fromkeys(kinds, 0)
            errors.append(error)
        except BaseException as error:  # noqa: BLE001 - the other parts still run
            fault = UnexpectedError(error)
            log.error("upkeep_part_failed", part=kinds[0], detail=fault.detail, trace=fault.frames)  # noqa: TRY400
            deleted |= dict.fromkeys(kinds, 0)
            errors.append(fault)
    for kind, number in deleted.items():
        if number and kind not in _NOT_REMOVED:
            metrics.count("dreamery_removed", kind, by=number)
    if any(deleted.values()):
        log.info("upkeep", **deleted)
    if errors:
        raise errors[0]
    return _SUMMARY.format(**deleted)


def _delete_requests() -> tuple[int]:
    with transaction() as tx:
        return (idempotency.delete_expired_requests(tx),)


def _delete_checks() -> tuple[int]:
    with transaction() as tx:
        list_pace.delete_old(tx)
        return (session_checks.delete_old(tx, minutes=CHECK_MINUTES),)


def _delete_alerts() -> tuple[int]:
    with transaction() as tx:
        return (alerts.delete_old(tx),)


def _delete_unused_accounts() -> tuple[int, int]:
    with transaction() as tx:
        return unused_cleanup.delete_unused(tx, hours=NEVER_WORKED_HOURS, limit=_BATCH)


# What each part counts, and the part. The inputs before the unused accounts, whose deletion also removes the rows that
# name these files. What only copies or counts rows comes last.
_PARTS: tuple[tuple[tuple[str, ...], Callable[[], tuple[int, ...]]], ...] = (
    (("requests",), _delete_requests),
    (("checks",), _delete_checks),
    (("inputs",), lambda: (expire_inputs.delete_expired_inputs(),)),
    (("accounts", "jobs"), _delete_unused_accounts),
    (("files",), lambda: (expire_results.delete_expired_files(),)),
    (("batch_files",), lambda: (expire_batch_files.delete_batch_files(),)),
    (("deliveries",), lambda: (expire_results.delete_old_deliveries(),)),
    (("alerts",), _delete_alerts),
    (("events",), lambda: (expire_results.delete_old_events(),)),
    (("orphans",), lambda: (orphaned_files.delete_orphans(),)),
    (("prompts",), lambda: (expire_results.copy_prompts(),)),
    (("counts",), lambda: (expire_results.count_results(),)),
)
_NOT_REMOVED = frozenset({"checks", "prompts", "counts"})
