"""Readiness checks. Each check returns a problem description for the operator, or None."""

from collections.abc import Callable, Collection
from typing import Literal

from worker.core.settings import get_settings
from worker.db.engine import DATABASE_ERRORS, transaction
from worker.db.jobs import queries
from worker.messaging import heartbeat
from worker.messaging.pubsub import REDIS_ERRORS, is_redis_available

Check = Literal["database", "schema", "redis", "tick", "worker"]

# Check -> the check it depends on; it is skipped when that one fails.
_DEPENDS_ON: dict[Check, Check] = {"schema": "database", "tick": "redis", "worker": "redis"}


def _database() -> str | None:
    return None if _current_revision() is not None else "the database does not respond, or is empty"


def _schema() -> str | None:
    from worker.local.schema_upgrade import is_compatible, newest_revision

    present = _current_revision() or ""
    return (
        None
        if is_compatible(present)
        else f"the schema is at {present}, not at {newest_revision()}: run dreamery migrate"
    )


def _redis() -> str | None:
    return None if is_redis_available() else "Redis does not respond"


def _tick() -> str | None:
    seconds = heartbeat.seconds_since("tick")
    if seconds is None:
        return "no tick has run yet: is the scheduler running?"
    late = seconds > get_settings().worker_heartbeat_timeout_seconds
    return f"the last tick ran {seconds:.0f} s ago: are scheduler and workers running?" if late else None


def _worker() -> str | None:
    healthy = [worker for worker in heartbeat.list_workers() if worker.is_responsive and not worker.leaving]
    return None if any("fast" in worker.queues for worker in healthy) else "no worker accepts messages"


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
}


def run_checks(exclude: Collection[Check] = ()) -> dict[Check, str | None]:
    """Run all checks that are not excluded. Returns the problem of each, or None if it passed."""
    results: dict[Check, str | None] = {}
    for name, check in _CHECKS.items():
        if name in exclude or results.get(_DEPENDS_ON.get(name, name)):
            continue
        try:
            results[name] = check()
        except REDIS_ERRORS:
            results[name] = "Redis does not respond"
    return results
