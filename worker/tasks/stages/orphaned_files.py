"""Bytes in storage that no row names: of requests that were never accepted, of saves that died, of jobs that are gone.

Inputs are few and looked at in each upkeep. Results are walked once a day: a bucket a few pages at a time from where
the last upkeep left off, a local folder at one go, for it lists in no order. Nothing younger than a day is touched,
nor results of a job that has not ended. Part of upkeep.

Only one platform may remove strays in a storage, for to another one its files are strays: the first to ask owns it,
until an operator says otherwise (`dreamery take-storage`).
"""

from typing import Any
from uuid import UUID

from worker import storage
from worker.core.observability.logging import get_logger
from worker.core.watchdog import watchdog
from worker.db.engine import transaction
from worker.db.jobs import files, inputs, retention
from worker.db.platform import state as platform_state

log = get_logger("strays")

# Longer than any request takes from storing its inputs to committing its jobs, or a save from its bytes to its rows.
ORPHAN_HOURS = 24
_INPUTS = "inputs"
_RESULTS = "jobs"
_MOST_INPUTS = 200
_PAGES_AT_ONCE = 20
_WALK = "storage_walk"
_WALK_EVERY_HOURS = 24


def remove_strays() -> int:
    """Remove some; how many. Raises StorageError."""
    return _stray_inputs() + (_stray_results() if _is_ours() else 0)


def _is_ours() -> bool:
    with transaction() as tx:
        me = platform_state.installation(tx)
    owner = storage.claim(me)
    if owner != me:
        log.warning("storage_of_another_platform", place=storage.place())
    return owner == me


def _stray_inputs() -> int:
    removed = 0
    for keys in storage.old_keys(_INPUTS, hours=ORPHAN_HOURS):
        watchdog.renew()
        with transaction() as tx:
            known = inputs.known_keys(tx, keys)
        removed += _remove(keys, known)
        if removed >= _MOST_INPUTS:
            break
    return removed


def _stray_results() -> int:
    with transaction() as tx:
        after = _walk_from(platform_state.read(tx, _WALK))
    if after is None:
        return 0
    removed = 0
    for looked, (keys, last) in enumerate(storage.pages(_RESULTS, hours=ORPHAN_HOURS, after=after), start=1):
        watchdog.renew()
        with transaction() as tx:
            known = files.known_keys(tx, keys)
            unfinished = retention.unfinished_among(tx, sorted({job for key in keys if (job := _job_of(key))}))
        removed += _remove(keys, known | {key for key in keys if _job_of(key) in unfinished})
        if storage.lists_in_order():
            _note_walk(last)
            if looked >= _PAGES_AT_ONCE:
                return removed
    _note_walk(None)
    return removed


def _walk_from(noted: dict[str, Any] | None) -> str | None:
    """Where to go on; None = the last walk is not long over."""
    if noted is None:
        return ""
    if noted["after"] is None:
        return "" if noted["age_hours"] >= _WALK_EVERY_HOURS else None
    return str(noted["after"])


def _note_walk(after: str | None) -> None:
    with transaction() as tx:
        platform_state.write(tx, _WALK, {"after": after})


def _job_of(key: str) -> UUID | None:
    """Keys of results are `jobs/HEX/NAME`."""
    part = key.split("/")[1] if key.count("/") > 1 else ""
    try:
        return UUID(hex=part)
    except ValueError:
        return None


def _remove(keys: list[str], known: set[str]) -> int:
    strays = [key for key in keys if key not in known]
    for key in strays:
        watchdog.renew()
        storage.delete_file(key)
    return len(strays)
