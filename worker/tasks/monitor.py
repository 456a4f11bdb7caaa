"""The monitor, once a minute: write a sample of the platform, then let alerts fire and resolve.

Any number of schedulers may ask for it: one process writes the sample of a minute, and evaluations of the rules wait
for each other. What Redis, the storage and the workers show is read before the transactions begin (I2).
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from worker import storage
from worker.core.observability.logging import get_logger
from worker.core.observability.metrics import METRICS, Field
from worker.core.observability.samples import Measures, increase
from worker.db.engine import Transaction, retry_when_database_unavailable, transaction
from worker.db.monitoring import alerts, measurements, samples
from worker.db.monitoring.conditions import Readings, evaluate
from worker.db.platform import state as platform_state
from worker.messaging import celery_app, heartbeat, metrics_store
from worker.messaging.celery_app import QUEUE_OF
from worker.messaging.redis_errors import REDIS_ERRORS, explain

log = get_logger("monitor")

_CALL_BUCKETS = len(METRICS["dreamery_upstream_seconds"].buckets) + 1
# A worker that says nothing for this long has ended.
_ENDED_SECONDS = 120.0
# Since when each queue has no worker, kept over restarts.
_AWAY = "queues_without_worker"


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What Redis, the workers and the disk show: measures, totals of counters, idle queues. None = unknown."""

    measures: Measures = field(default_factory=dict)
    totals: dict[str, Any] = field(default_factory=dict)
    idle_queues: set[str] | None = None
    free_percent: float | None = None


def monitor() -> str:
    """Write the sample of this minute and evaluate the rules. Return a line about both."""
    snapshot = _take_snapshot()
    sampled = _sample(snapshot)
    if sampled is None:
        return "this minute has its sample"
    changes = _evaluate(snapshot, gap_seconds=sampled)
    if changes.fired or changes.resolved:
        log.info("alerts_changed", fired=changes.fired, resolved=changes.resolved, messages=len(changes.messages))
    return f"sampled; {changes.fired} alerts fired, {changes.resolved} resolved, {len(changes.messages)} messages"


def _take_snapshot() -> _Snapshot:
    measures: Measures = {}
    totals: dict[str, Any] = {}
    idle = None
    try:
        totals = _totals(metrics_store.read())
        measures["messages_waiting"] = sum(metrics_store.queue_lengths().values())
        measures["redis_bytes"] = metrics_store.memory_bytes()
        workers = [one for one in heartbeat.list_workers() if one.told_seconds <= _ENDED_SECONDS]
        working = [one for one in workers if one.is_responsive and not one.leaving]
        measures |= {
            "workers": len(working),
            "worker_threads": sum(one.threads for one in working),
            "worker_threads_busy": sum(one.busy for one in working),
        }
        idle = set(QUEUE_OF.values()) - {queue for one in working for queue in one.queues}
    except REDIS_ERRORS as error:
        log.warning("monitor_without_redis", reason=explain(error))
    free = None
    try:
        folder = storage.local_folder()
        room = None if folder is None else shutil.disk_usage(folder)
    except OSError:
        room = None
    if room is not None:
        measures |= {"storage_used_bytes": room.used, "storage_free_bytes": room.free}
        free = 100 * room.free / max(room.used + room.free, 1)
    return _Snapshot(measures, totals, idle, free)


def _totals(counts: dict[Field, float]) -> dict[str, Any]:
    """Return the totals that samples need of the counters of all processes."""
    found: dict[str, Any] = {"upstream_call": [0.0] * _CALL_BUCKETS}
    found |= dict.fromkeys(("requests", "request_errors", "upstream_calls", "upstream_errors"), 0.0)
    for (name, labels, part), value in counts.items():
        if name == "dreamery_requests":
            found["requests"] += value
            found["request_errors"] += value if labels[2].startswith("5") else 0.0
        elif name == "dreamery_upstream_calls":
            found["upstream_calls"] += value
            found["upstream_errors"] += value if labels[1] != "ok" else 0.0
        elif name == "dreamery_upstream_seconds" and part.isdigit() and int(part) < _CALL_BUCKETS:
            found["upstream_call"][int(part)] += value
    return found


@retry_when_database_unavailable
def _sample(snapshot: _Snapshot) -> float | None:
    """Write the sample of this minute. Return for how many seconds there was none; None = it is written already."""
    with transaction() as tx:
        begun = samples.begin(tx)
        if begun is None:
            return None
        now, minute = begun
        before = samples.read_totals(tx)
        until = now - samples.LAG_SECONDS
        # A clock that was set back counts nothing twice.
        since = max(min(float(before.get("until", until - 60)), until), until - samples.MOST_SECONDS)
        measures = measurements.read_levels(tx).measures | snapshot.measures | _increases(snapshot.totals, before)
        measures |= measurements.read_ended(tx, since=since, until=until)
        samples.add(tx, minute, measures)
        samples.write_totals(tx, {**before, **snapshot.totals, "until": until, "sampled": now})
        samples.roll_up(tx)
        return max(now - float(before.get("sampled", now)), 0.0)


def _increases(totals: dict[str, Any], before: dict[str, Any]) -> Measures:
    found: Measures = {}
    for name, value in totals.items():
        known = before.get(name)
        if isinstance(value, list):
            if isinstance(known, list) and len(known) == len(value):
                found[name] = [increase(new, old) for new, old in zip(value, known, strict=True)]
            continue
        grown = increase(value, known)
        if grown is not None:
            found[name] = grown
    return found


@retry_when_database_unavailable
def _evaluate(snapshot: _Snapshot, *, gap_seconds: float) -> alerts.Changes:
    with transaction() as tx:
        alerts.lock(tx)
        rules = alerts.list_rules(tx)
        readings = Readings(
            free_percent=snapshot.free_percent,
            queues_without_worker=_queues_without_worker(tx, snapshot.idle_queues),
            gap_seconds=gap_seconds,
        )
        changes = alerts.apply(tx, rules, evaluate(tx, rules, readings))
        for message in changes.messages:
            tx.on_commit(partial(celery_app.enqueue_notify, message))
        return changes


def _queues_without_worker(tx: Transaction, idle: Iterable[str] | None) -> dict[str, float] | None:
    """Return for how many seconds each of these queues has had no worker, and keep it."""
    if idle is None:
        return None
    known = platform_state.read_value(tx, _AWAY)
    now = samples.now(tx)
    since = {queue: float(known.get(queue, now)) for queue in sorted(idle)}
    if since != known:
        platform_state.write(tx, _AWAY, since)
    return {queue: max(now - at, 0.0) for queue, at in since.items()}
