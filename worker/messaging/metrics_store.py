"""Counts of all processes, added up in one Redis hash: right with any number of API processes, workers and hosts.

A process that is killed loses what it counted in the last two seconds; an emptied Redis starts from zero, which
Prometheus takes for a restart.
"""

import atexit
import threading

import orjson
from redis.exceptions import RedisError

from worker.core.observability import metrics
from worker.core.observability.logging import get_logger
from worker.core.observability.metrics import Field
from worker.messaging.celery_app import QUEUE_OF
from worker.messaging.redis_connection import redis_client

log = get_logger("metrics")

KEY = "dreamery:metrics"
FLUSH_SECONDS = 2.0


def flush() -> bool:
    """Carry the counts of this process to Redis; False when it is away, then they wait here."""
    taken = metrics.take()
    if not taken:
        return True
    try:
        pipe = redis_client().pipeline(transaction=True)
        for (name, labels, part), by in taken.items():
            pipe.hincrbyfloat(KEY, orjson.dumps([name, labels, part]), by)
        pipe.execute()
    except RedisError as error:
        metrics.give_back(taken)
        log.warning("metrics_wait", reason=type(error).__name__)
        return False
    return True


def read() -> dict[Field, float]:
    """The sums of all processes. Raises RedisError when Redis is away."""
    found: dict[Field, float] = {}
    for raw, value in redis_client().hgetall(KEY).items():
        name, labels, part = orjson.loads(raw)
        # A name of another version is no longer known here.
        if name in metrics.MEASURES:
            found[name, tuple(labels), part] = float(value)
    return found


def messages_waiting() -> dict[str, int]:
    """How many nudges lie in each queue. Raises RedisError when Redis is away."""
    names = sorted(set(QUEUE_OF.values()))
    pipe = redis_client().pipeline(transaction=False)
    for name in names:
        pipe.llen(name)
    return dict(zip(names, pipe.execute(), strict=True))


class Flusher(threading.Thread):
    """Flushes now and then, and at the end of the process or when it is stopped."""

    def __init__(self) -> None:
        super().__init__(name="metrics", daemon=True)
        self._stopped = threading.Event()
        atexit.register(self.stop)

    def run(self) -> None:
        while not self._stopped.wait(FLUSH_SECONDS):
            flush()

    def stop(self) -> None:
        """Flush for the last time; a second call does nothing."""
        if not self._stopped.is_set():
            self._stopped.set()
            atexit.unregister(self.stop)
            if self.is_alive():
                self.join()
            flush()


def start() -> Flusher:
    """A flusher for this process, running."""
    flusher = Flusher()
    flusher.start()
    return flusher
