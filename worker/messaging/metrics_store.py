"""Sums the metrics of all processes in one Redis hash, for any number of API processes, workers and hosts.

A killed process loses the counts of its last five seconds. An emptied Redis starts from zero, which Prometheus treats
as a restart.
"""

import atexit
import threading

import orjson

from worker.core.observability import metrics
from worker.core.observability.logging import get_logger
from worker.core.observability.metrics import Field
from worker.messaging.celery_app import QUEUE_OF
from worker.messaging.redis_connection import redis_client
from worker.messaging.redis_errors import REDIS_ERRORS, explain

log = get_logger("metrics")

KEY = "dreamery:metrics"
FLUSH_SECONDS = 5.0


def flush() -> bool:
    """Add the counts of this process to Redis. Return False if Redis is unavailable; the counts are then kept."""
    counts = metrics.drain_counts()
    if not counts:
        return True
    try:
        pipe = redis_client().pipeline(transaction=True)
        for (name, labels, part), by in counts.items():
            pipe.hincrbyfloat(KEY, orjson.dumps([name, labels, part]), by)
        pipe.execute()
    except REDIS_ERRORS as error:
        metrics.restore_counts(counts)
        log.warning("metrics_wait", reason=explain(error))
        return False
    return True


def read() -> dict[Field, float]:
    """Return the sums over all processes. Raises RedisError if Redis is unavailable."""
    found: dict[Field, float] = {}
    for raw, value in redis_client().hgetall(KEY).items():
        name, labels, part = orjson.loads(raw)
        # Another version may have stored a metric that does not exist here.
        if name in metrics.METRICS:
            found[name, tuple(labels), part] = float(value)
    return found


def queue_lengths() -> dict[str, int]:
    """Return the number of waiting messages per queue. Raises RedisError if Redis is unavailable."""
    names = sorted(set(QUEUE_OF.values()))
    pipe = redis_client().pipeline(transaction=False)
    for name in names:
        pipe.llen(name)
    return dict(zip(names, pipe.execute(), strict=True))


def memory_bytes() -> int:
    """Return the memory that Redis uses. Raises RedisError if Redis is unavailable."""
    return int(redis_client().info("memory")["used_memory"])


class Flusher(threading.Thread):
    """Flushes periodically, when stopped, and at the end of the process."""

    def __init__(self) -> None:
        super().__init__(name="metrics", daemon=True)
        self._stopped = threading.Event()
        atexit.register(self.stop)

    def run(self) -> None:
        while not self._stopped.wait(FLUSH_SECONDS):
            flush()

    def stop(self) -> None:
        """Flush one last time. A second call has no effect."""
        if not self._stopped.is_set():
            self._stopped.set()
            atexit.unregister(self.stop)
            if self.is_alive():
                self.join()
            flush()


def start() -> Flusher:
    """Start the flusher of this process and return it."""
    flusher = Flusher()
    flusher.start()
    return flusher
