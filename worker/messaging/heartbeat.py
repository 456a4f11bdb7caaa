"""Who is alive and hears: workers, the scheduler and the tick, as they tell in Redis.

A worker that is alive but takes no message is the failure that a process check misses. So each worker sends itself a
message, over the broker and a queue of its own, and notes when one was *consumed*. A thread tells Redis how long ago
that was, and how many threads are at work: a worker whose threads are all at work takes no message either, and its
steps are the watchdog's business. Times are Redis' own, so that clocks of hosts do not matter.
"""

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
from worker.messaging.pubsub import BUS_ERRORS
from worker.messaging.redis_connection import redis_client

log = get_logger("heartbeat")

_WORKERS = "dreamery:workers"
_SEEN = "dreamery:seen"
# So often within the time after which a worker is deaf, it sends itself a message.
_BEATS = 5
# What a worker that is gone has left is forgotten after this.
_FORGET_SECONDS = 600.0
_SEEN_EVERY_SECONDS = 0.9


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process, as it told last. Seconds are those since then, or until now."""

    name: str  # Celery's name for it, `worker-1@host`
    host: str
    pid: int
    queues: list[str]
    threads: int
    busy: int
    heard_seconds: float  # since it consumed its last message to itself
    told_seconds: float  # since it told anything
    started_seconds: float
    resident_bytes: int
    leaving: bool  # it was asked to stop, takes no more messages and finishes its steps

    @property
    def hears(self) -> bool:
        """Whether it takes messages, or cannot only because all of its threads are at work."""
        return self.hears_within(get_settings().deaf_seconds)

    def hears_within(self, seconds: float) -> bool:
        """The same, by another measure."""
        busy = self.leaving or self.busy >= self.threads
        return self.told_seconds <= seconds and (busy or self.heard_seconds <= seconds)


class _Pulse:
    """What this process knows of itself."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.started = self.heard = time.monotonic()
        self.busy = 0
        self.seen: dict[str, float] = {}
        self.leaving = False


_pulse = _Pulse()


def queue_of(name: str) -> Queue:
    """The queue over which a worker hears itself; Redis forgets it when the worker is gone."""
    known = f"self:{name}"
    return Queue(known, exchange=Exchange("self"), routing_key=known, expires=_FORGET_SECONDS)  # type: ignore[no-untyped-call]


def note_heard() -> None:
    """A message to oneself was consumed. Called by the task that the message names, and by nothing else."""
    _pulse.heard = time.monotonic()


def note_start() -> None:
    """A step begins on a thread of this process."""
    with _pulse.lock:
        _pulse.busy += 1


def note_end() -> None:
    """It has ended."""
    with _pulse.lock:
        _pulse.busy -= 1


def note_seen(what: str) -> None:
    """`tick` has run, or `scheduler` has sent one, just now. Told at most once a second."""
    now = time.monotonic()
    if now - _pulse.seen.get(what, 0.0) < _SEEN_EVERY_SECONDS:
        return
    try:
        client = redis_client()
        client.hset(_SEEN, what, repr(_redis_now(client)))
        _pulse.seen[what] = now
    except BUS_ERRORS as error:
        log.warning("not_told", what=what, reason=type(error).__name__)


def start(name: str, *, queues: list[str], threads: int) -> None:
    """Begin to send oneself messages and to tell about it, until the end of the process."""
    _pulse.started = _pulse.heard = time.monotonic()
    threading.Thread(target=_beat, args=(name, queues, threads), name="heartbeat", daemon=True).start()


def leave() -> None:
    """This worker was asked to stop: it takes no more messages, and that it is gone soon is right."""
    _pulse.leaving = True


def _beat(name: str, queues: list[str], threads: int) -> None:
    pause, every, own = threading.Event(), get_settings().deaf_seconds / _BEATS, queue_of(name)
    while True:
        try:
            if not _pulse.leaving:
                celery_app.app.send_task(
                    celery_app.HEARTBEAT, queue=own, expires=get_settings().deaf_seconds, ignore_result=True
                )
            tell(name, queues=queues, threads=threads)
        except Exception as error:  # noqa: BLE001 - see `queue._send`; the next beat tries again
            log.warning("heartbeat_lost", reason=type(error).__name__)
        pause.wait(every)


def tell(name: str, *, queues: list[str], threads: int) -> None:
    """Write down how this worker is. Raises RedisError or OSError."""
    client = redis_client()
    now, here = _redis_now(client), time.monotonic()
    known = {
        "name": name,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "queues": queues,
        "threads": threads,
        "busy": _pulse.busy,
        "resident_bytes": _resident_bytes(),
        "leaving": _pulse.leaving,
        "heard": now - (here - _pulse.heard),
        "told": now,
        "started": now - (here - _pulse.started),
    }
    client.hset(_WORKERS, _field(name), orjson.dumps(known))
    gone = [field for field, worker in _read(client, now).items() if worker.told_seconds > _FORGET_SECONDS]
    if gone:
        client.hdel(_WORKERS, *gone)


def _field(name: str) -> str:
    return f"{name}#{os.getpid()}"


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0  # not on Linux


def workers(redis_url: str = "") -> list[Worker]:
    """Every worker that told anything in the last ten minutes, by name, but those that were asked to stop and have.

    Raises RedisError or OSError.
    """
    client = redis_client(redis_url)
    found = _read(client, _redis_now(client)).values()
    limit = get_settings().deaf_seconds
    kept = [w for w in found if w.told_seconds <= (limit if w.leaving else _FORGET_SECONDS)]
    return sorted(kept, key=lambda worker: worker.name)


def seen_seconds(what: str) -> float | None:
    """How long ago `tick` or `scheduler` was last seen; None = never. Raises RedisError or OSError."""
    client = redis_client()
    at = client.hget(_SEEN, what)
    return None if at is None else max(_redis_now(client) - float(at), 0.0)


def _read(client: redis.Redis, now: float) -> dict[bytes | str, Worker]:
    found = {}
    for field, raw in client.hgetall(_WORKERS).items():
        told = orjson.loads(raw)
        for moment in ("heard", "told", "started"):
            told[f"{moment}_seconds"] = max(now - told.pop(moment), 0.0)
        # A worker of another version may tell more.
        known = {item.name: told[item.name] for item in fields(Worker) if item.name in told}
        if len(known) == len(fields(Worker)):
            found[field] = Worker(**known)
    return found


def as_json(worker: Worker) -> dict[str, object]:
    """A worker as `dreamery health --json` and others show it."""
    return {**asdict(worker), "hears": worker.hears}


def _redis_now(client: redis.Redis) -> float:
    seconds, micros = client.time()
    return float(seconds) + float(micros) / 1e6
