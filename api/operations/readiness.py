"""Readiness checks. Each check returns a problem description for the operator, or None."""

from collections.abc import Callable, Collection
from typing import Literal

from worker.core.settings import get_settings
from worker.db.engine import DATABASE_ERRORS, is_database_away, reason_for_callers, transaction
from worker.db.jobs import queries
from worker.db.platform import state as platform_state
from worker.messaging import heartbeat
from worker.messaging.redis_connection import find_redis_problem
from worker.messaging.redis_errors import REDIS_ERRORS, explain

Check = Literal["database", "schema", "redis", "tick", "worker", "storage"]
# Without it the platform accepts, reads and continues everything else: it is degraded, and not down.
DEGRADED: frozenset[Check] = frozenset({"storage"})

# Check -> the check it depends on; it is skipped when that one fails.
_DEPENDS_ON: dict[Check, Check] = {"schema": "database", "tick": "redis", "worker": "redis", "storage": "database"}

# Without names and places, because everyone can read them.
_STORAGE_PROBLEMS = {
    "full": "the storage is full, finished results wait",
    "read_only": "the storage is read-only, finished results wait",
    "refused": "the storage refuses access, finished results wait",
    "away": "the storage does not respond, finished results wait",
    "temporary_files": "a worker has no room for temporary files, finished results wait",
}


def _database() -> str | None:
    """Write, because a server that became read-only still reads."""
    try:
        with transaction() as tx:
            platform_state.require_writable(tx)
    except DATABASE_ERRORS as error:
        if not is_database_away(error):
            return "the database cannot be written to, or has no tables: run dreamery migrate"
        reason = reason_for_callers(error).rstrip(".")
        return reason[0].lower() + reason[1:]
    return None


def _schema() -> str | None:
    from worker.local.schema_upgrade import is_compatible, newest_revision

    present = _current_revision() or ""
    return (
        None
        if is_compatible(present)
        else f"the schema is at {present}, not at {newest_revision()}: run dreamery migrate"
    )


def _redis() -> str | None:
    return find_redis_problem()


def _tick() -> str | None:
    seconds = heartbeat.seconds_since("tick")
    if seconds is None:
        return "no tick has run yet: is the scheduler running?"
    late = seconds > get_settings().worker_heartbeat_timeout_seconds
    return f"the last tick ran {seconds:.0f} s ago: are scheduler and workers running?" if late else None


def _worker() -> str | None:
    healthy = [worker for worker in heartbeat.list_workers() if worker.is_responsive and not worker.leaving]
    return None if any("fast" in worker.queues for worker in healthy) else "no worker accepts messages"


def _storage() -> str | None:
    try:
        with transaction() as tx:
            problem = platform_state.get_storage_problem(tx)
    except DATABASE_ERRORS:
        return None
    return None if problem is None else _STORAGE_PROBLEMS.get(problem.kind, _STORAGE_PROBLEMS["away"])


def _current_revision() -> str | None:
    try:
        with transaction() as tx:
            return queries.schema_revision(tx)
    except DATABASE_ERRORS:
        return None


_CHECKS: dict[Check, Callable[[], str | None]] = {
    "database": _database,
    "schema": _schema,
    "redis": _redis,
    "tick": _tick,
    "worker": _worker,
    "storage": _storage,
}


def run_checks(exclude: Collection[Check] = ()) -> dict[Check, str | None]:
    """Run all checks that are not excluded. Returns the problem of each, or None if it passed."""
    results: dict[Check, str | None] = {}
    for name, check in _CHECKS.items():
        if name in exclude or results.get(_DEPENDS_ON.get(name, name)):
            continue
        try:
            results[name] = check()
        except REDIS_ERRORS as error:
            results[name] = explain(error)
    return results
