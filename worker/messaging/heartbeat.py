"""Heartbeats of workers, the scheduler and the tick, stored in Redis.

A process check does not detect a worker that is alive but consumes no messages. So each worker sends heartbeat
messages to itself through the broker and records when one was *consumed*. A thread publishes that time and the number
of busy threads to Redis. A worker whose threads are all busy consumes no messages either; the watchdog covers its
tasks. All times are Redis server times, so clock differences between hosts do not matter.
"""

import contextlib
import math
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import orjson
import redis
from kombu.entity import Exchange, Queue

from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.messaging import celery_app
from worker.messaging.redis_connection import redis_client
from worker.messaging.redis_errors import REDIS_ERRORS, explain

log = get_logger("heartbeat")

_WORKERS = "dreamery:workers"
_SEEN = "dreamery:seen"
# Heartbeat messages per heartbeat timeout.
_BEATS = 5
# A worker that published nothing for this long has ended, and is not listed. It publishes every few seconds.
_GONE_SECONDS = 60.0
# The heartbeat queue of a worker expires after this time without it.
_QUEUE_TTL_SECONDS = 600
# `tick` and `scheduler` are recorded this often per heartbeat timeout.
_RECORDS = 5


@dataclass(frozen=True, slots=True)
class Worker:
    """The last published status of a worker process. Durations are seconds until now."""

    name: str  # Celery's name for it, `worker-1@host`
    host: str
    pid: int
    queues: list[str]
    threads: int
    busy: int
    heard_seconds: float  # since it consumed its last heartbeat message
    told_seconds: float  # since it last published its status
    started_seconds: float
    resident_bytes: int
    leaving: bool  # it is stopping: it consumes no messages and finishes its tasks

    @property
    def is_responsive(self) -> bool:
        """Whether the worker consumes messages, or does not only because all its threads are busy."""
        return self.is_responsive_within(get_settings().worker_heartbeat_timeout_seconds)

    def is_responsive_within(self, seconds: float) -> bool:
        """Like `is_responsive`, with another timeout."""
        busy = self.leaving or self.busy >= self.threads
        return self.told_seconds <= seconds and (busy or self.heard_seconds <= seconds)


class _ProcessStatus:
    """Status of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.started = self.consumed_at = time.monotonic()
        self.busy = 0
        self.seen: dict[str, float] = {}
        self.leaving = False
        # When the scheduler of this process last took its turn; None = there is none.
        self.ticked_at: float | None = None


_status = _ProcessStatus()


def heartbeat_queue(name: str) -> Queue:
    """The heartbeat queue of a worker. Its messages need no acknowledgement, which would cost eight commands each."""
    queue = f"self:{name}"
    return Queue(queue, exchange=Exchange("self"), routing_key=queue, no_ack=True)  # type: ignore[no-untyped-call]


def record_heartbeat() -> None:
    """Record that a heartbeat message was consumed. Only the heartbeat task calls this."""
    _status.consumed_at = time.monotonic()


def record_task_start() -> None:
    """Record that a task started on a thread of this process."""
    with _status.lock:
        _status.busy += 1


def record_task_end() -> None:
    """Record that a task ended."""
    with _status.lock:
        _status.busy -= 1


def record_activity(what: str) -> None:
    """Record in Redis that `tick` ran or `scheduler` sent one, at most five times per heartbeat timeout."""
    now = time.monotonic()
    if now - _status.seen.get(what, -math.inf) < get_settings().worker_heartbeat_timeout_seconds / _RECORDS:
        return
    try:
        client = redis_client()
        client.hset(_SEEN, what, repr(_redis_now(client)))
        _status.seen[what] = now
    except REDIS_ERRORS as error:
        log.warning("not_told", what=what, reason=explain(error))


def record_scheduler_turn() -> None:
    """Record that the scheduler of this process took its turn. Only the scheduler calls this."""
    _status.ticked_at = time.monotonic()


def seconds_since_scheduler_turn() -> float | None:
    """Return the age of that turn; None = no scheduler runs in this process."""
    return None if _status.ticked_at is None else time.monotonic() - _status.ticked_at


def start(name: str, *, queues: list[str], threads: int) -> None:
    """Start to send heartbeat messages and publish the status, until the end of the process."""
    _status.started = _status.consumed_at = time.monotonic()
    threading.Thread(target=_run_heartbeat, args=(name, queues, threads), name="heartbeat", daemon=True).start()


def mark_leaving() -> None:
    """Mark this worker as stopping: from now on it consumes no messages, and its disappearance is not a failure."""
    _status.leaving = True


def _run_heartbeat(name: str, queues: list[str], threads: int) -> None:
    timeout = get_settings().worker_heartbeat_timeout_seconds
    pause, own_queue = threading.Event(), heartbeat_queue(name)
    while True:
        try:
            if not _status.leaving:
                celery_app.app.send_task(celery_app.HEARTBEAT, queue=own_queue, expires=timeout, ignore_result=True)
                # Only a message that nobody consumes is left, so the queue of a stopped worker expires.
                redis_client().expire(own_queue.name, _QUEUE_TTL_SECONDS)
            publish_status(name, queues=queues, threads=threads)
        except Exception as error:  # noqa: BLE001 - see `celery_app._send`; the next beat tries again
            log.warning("heartbeat_lost", reason=explain(error))
            record_status(threads=threads, redis=False)
        else:
            record_status(threads=threads, redis=True)
        pause.wait(timeout / _BEATS)


def record_status(*, threads: int, redis: bool) -> None:
    """Record the status of this worker in a file for the supervisor of this machine, if there is one.

    Times are seconds of the monotonic clock, which all processes of a machine share. `redis` = Redis responds.
    """
    folder = get_settings().worker_status_dir
    if folder is None:
        return
    status = {
        "recorded_at": time.monotonic(),
        "consumed_at": _status.consumed_at,
        "occupied": _status.busy >= threads,
        "leaving": _status.leaving,
        "redis": redis,
        "ticked_at": _status.ticked_at,
    }
    with contextlib.suppress(OSError):  # without the file, the supervisor restarts this worker after a while
        folder.mkdir(mode=0o700, exist_ok=True)
        draft = folder / f"{os.getpid()}.new"
        draft.write_bytes(orjson.dumps(status))
        draft.replace(folder / f"{os.getpid()}.json")


def publish_status(name: str, *, queues: list[str], threads: int) -> None:
    """Publish the status of this worker. Raises RedisError or OSError."""
    client = redis_client()
    now, local_now = _redis_now(client), time.monotonic()
    status = {
        "name": name,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "queues": queues,
        "threads": threads,
        "busy": _status.busy,
        "resident_bytes": _resident_bytes(),
        "leaving": _status.leaving,
        "heard": now - (local_now - _status.consumed_at),
        "told": now,
        "started": now - (local_now - _status.started),
    }
    client.hset(_WORKERS, _field(name), orjson.dumps(status))


def _field(name: str) -> str:
    return f"{name}#{os.getpid()}"


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0  # not on Linux


def list_workers(redis_url: str = "") -> list[Worker]:
    """Return all workers that published a status in the last minute, by name, without those that stopped.

    With a heartbeat timeout of more than 30 seconds it is twice that time. Older entries are deleted. Raises RedisError
    or OSError.
    """
    client = redis_client(redis_url)
    entries = _read(client, _redis_now(client))
    limit = get_settings().worker_heartbeat_timeout_seconds
    gone = max(_GONE_SECONDS, 2 * limit)
    expired = [field for field, worker in entries.items() if worker.told_seconds > gone]
    if expired:
        client.hdel(_WORKERS, *expired)
    found = entries.values()
    kept = [w for w in found if w.told_seconds <= (limit if w.leaving else gone)]
    return sorted(kept, key=lambda worker: worker.name)


def seconds_since(what: str) -> float | None:
    """Return the seconds since `tick` or `scheduler` was recorded; None = never. Raises RedisError or OSError."""
    client = redis_client()
    at = client.hget(_SEEN, what)
    return None if at is None else max(_redis_now(client) - float(at), 0.0)


def _read(client: redis.Redis, now: float) -> dict[bytes | str, Worker]:
    found = {}
    for field, raw in client.hgetall(_WORKERS).items():
        data = orjson.loads(raw)
        for moment in ("heard", "told", "started"):
            data[f"{moment}_seconds"] = max(now - data.pop(moment), 0.0)
        # A worker of another version may publish more fields.
        known = {item.name: data[item.name] for item in fields(Worker) if item.name in data}
        if len(known) == len(fields(Worker)):
            found[field] = Worker(**known)
    return found


def as_json(worker: Worker) -> dict[str, object]:
    """Return a worker as `dreamery health --json` and other outputs show it."""
    return {**asdict(worker), "hears": worker.is_responsive}


def _redis_now(client: redis.Redis) -> float:
    seconds, micros = client.time()
    return float(seconds) + float(micros) / 1e6
