"""Deletes orphaned files: bytes in storage without a row, left by rejected requests, dead saves and deleted jobs.

There are few inputs, so each cleanup lists them all. Results are listed once a day: a bucket a few pages at a time,
from where the last cleanup stopped; a local folder in one go, because it is listed in no order. Files younger than a
day and results of unfinished jobs are never touched. Part of cleanup.

Only one platform may delete orphans in a storage, because the files of another platform look orphaned to it. The first
platform that claims the storage owns it until an operator changes that (`dreamery take-storage`).
"""

from typing import Any
from uuid import UUID

from worker import storage
from worker.core.concurrency.watchdog import watchdog
from worker.core.media.thumbnail_keys import original_of
from worker.core.observability.logging import get_logger
from worker.db.batches import batch_files
from worker.db.engine import transaction
from worker.db.jobs import files, inputs, retention
from worker.db.platform import state as platform_state

log = get_logger("orphaned_files")

# Longer than a request takes from storing its inputs to committing its jobs, or a save from its bytes to its rows.
ORPHAN_HOURS = 24
_INPUTS = "inputs"
_RESULTS = "jobs"
_MAX_INPUTS = 200
_PAGES_PER_RUN = 20
_SCAN_STATE = "storage_walk"
_SCAN_EVERY_HOURS = 24


def delete_orphans() -> int:
    """Delete some orphaned files. Return their number. Raises StorageError."""
    deleted = _delete_orphaned_inputs() + _delete_orphaned_batch_files()
    return deleted + (_delete_orphaned_results() if _owns_storage() else 0)


def _owns_storage() -> bool:
    with transaction() as tx:
        own_id = platform_state.get_installation_id(tx)
    owner = storage.claim_ownership(own_id)
    if owner != own_id:
        log.warning("storage_of_another_platform", place=storage.describe_location())
    return owner == own_id


def _delete_orphaned_inputs() -> int:
    deleted = 0
    for keys in storage.list_old_keys(_INPUTS, hours=ORPHAN_HOURS):
        watchdog.renew()
        with transaction() as tx:
            known = inputs.known_keys(tx, _originals(keys))
        deleted += _delete_unknown(keys, known)
        if deleted >= _MAX_INPUTS:
            break
    return deleted


def _delete_orphaned_batch_files() -> int:
    deleted = 0
    for keys in storage.list_old_keys(batch_files.PREFIX, hours=ORPHAN_HOURS):
        watchdog.renew()
        with transaction() as tx:
            known = batch_files.known_keys(tx, keys)
        deleted += _delete_unknown(keys, known)
        if deleted >= _MAX_INPUTS:
            break
    return deleted


def _delete_orphaned_results() -> int:
    with transaction() as tx:
        after = _scan_start(platform_state.read(tx, _SCAN_STATE))
    if after is None:
        return 0
    deleted = storage.delete_unfinished(hours=ORPHAN_HOURS)
    for count, (keys, last) in enumerate(storage.list_pages(_RESULTS, hours=ORPHAN_HOURS, after=after), start=1):
        watchdog.renew()
        with transaction() as tx:
            known = files.known_keys(tx, _originals(keys))
            unfinished = retention.open_jobs_among(tx, sorted({job for key in keys if (job := _job_of(key))}))
        deleted += _delete_unknown(keys, known | {key for key in keys if _job_of(key) in unfinished})
        if storage.lists_in_order():
            _save_scan_position(last)
            if count >= _PAGES_PER_RUN:
                return deleted
    _save_scan_position(None)
    return deleted


def _scan_start(saved: dict[str, Any] | None) -> str | None:
    """Return the key to continue after ("" = the beginning); None = the last scan ended less than a day ago."""
    if saved is None:
        return ""
    if saved["after"] is None:
        return "" if saved["age_hours"] >= _SCAN_EVERY_HOURS else None
    return str(saved["after"])


def _save_scan_position(after: str | None) -> None:
    with transaction() as tx:
        platform_state.write(tx, _SCAN_STATE, {"after": after})


def _job_of(key: str) -> UUID | None:
    """Return the job of a result key `jobs/HEX/NAME`; None for any other key."""
    part = key.split("/")[1] if key.count("/") > 1 else ""
    try:
        return UUID(hex=part)
    except ValueError:
        return None


def _originals(keys: list[str]) -> list[str]:
    """Return the keys with rows: a kept thumbnail has none, it lives as long as its image."""
    return sorted({original_of(key) for key in keys})


def _delete_unknown(keys: list[str], known: set[str]) -> int:
    orphans = [key for key in keys if key not in known and original_of(key) not in known]
    for key in orphans:
        watchdog.renew()
        storage.delete_file(key)
    return len(orphans)
