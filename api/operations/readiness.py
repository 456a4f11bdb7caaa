"""Can the platform work? Each check says what is wrong, in words for whoever runs it."""

from collections.abc import Callable, Collection
from typing import Literal

from worker.core.settings import get_settings
from worker.db.engine import DATABASE_ERRORS, transaction
from worker.db.jobs import queries
from worker.messaging import heartbeat
from worker.messaging.pubsub import BUS_ERRORS, redis_answers

Check = Literal["database", "schema", "redis", "tick", "worker"]

# What depends on whose answer: without it nothing is said of them.
_NEEDS: dict[Check, Check] = {"schema": "database", "tick": "redis", "worker": "redis"}


def _database() -> str | None:
    return None if _present_revision() is not None else "the database does not answer, or is empty"


def _schema() -> str | None:
    from worker.local.schema_upgrade import newest_revision, suffices

    present = _present_revision() or ""
    return None if suffices(present) else f"the schema is at {present}, not {newest_revision()}: run dreamery migrate"


def _redis() -> str | None:
    return None if redis_answers() else "Redis does not answer"


def _tick() -> str | None:
    seconds = heartbeat.seen_seconds("tick")
    if seconds is None:
        return "no tick has run yet: is the scheduler running?"
    late = seconds > get_settings().deaf_seconds
    return f"the last tick ran {seconds:.0f} s ago: are scheduler and workers running?" if late else None


def _worker() -> str | None:
    hearing = [worker for worker in heartbeat.workers() if worker.hears and not worker.leaving]
    return None if any("fast" in worker.queues for worker in hearing) else "no worker takes messages"


def _present_revision() -> str | None:
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


def examine(exclude: Collection[Check] = ()) -> dict[Check, str | None]:
    """Every check that was not excluded, with what is wrong, or None."""
    found: dict[Check, str | None] = {}
    for name, check in _CHECKS.items():
        if name in exclude or found.get(_NEEDS.get(name, name)):
            continue
        try:
            found[name] = check()
        except BUS_ERRORS:
            found[name] = "Redis does not answer"
    return found
