"""Kills unresponsive workers of this machine, so that the process supervisor restarts them."""

import http.client
import threading
import time
from collections.abc import Callable, Iterable

from worker.local.processes import Child
from worker.messaging import heartbeat
from worker.messaging.pubsub import REDIS_ERRORS

# A new process imports modules for a while before it processes its first heartbeat.
_STARTUP_SECONDS = 60.0


def responds_ok(host: str, port: int, path: str) -> bool:
    """Return whether a GET to a server of this machine returns 200."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class WorkerLivenessMonitor(threading.Thread):
    """Checks the heartbeat of each worker process and kills workers without one for `seconds`.

    Time without Redis does not count, as heartbeats are messages.
    """

    def __init__(
        self, workers: Iterable[Child], *, redis_url: str, seconds: float, on_notice: Callable[[str], None]
    ) -> None:
        super().__init__(name="dreamery-liveness", daemon=True)
        self._workers = list(workers)
        self._redis_url = redis_url
        self._seconds = seconds
        self._on_notice = on_notice
        self._healthy_until: dict[int, float] = {}
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Check all workers five times per `seconds` until stopped."""
        while not self._stopped.wait(self._seconds / 5):
            try:
                workers = heartbeat.list_workers(self._redis_url)
            except REDIS_ERRORS:
                self._healthy_until.clear()
                continue
            responsive = {worker.pid for worker in workers if worker.is_responsive_within(self._seconds)}
            for child in self._workers:
                self._check(child, responsive)

    def _check(self, child: Child, responsive: set[int]) -> None:
        now, pid = time.monotonic(), child.pid
        if pid in responsive:
            self._healthy_until[pid] = now + self._seconds
        elif pid not in self._healthy_until:
            self._healthy_until[pid] = now + max(self._seconds, _STARTUP_SECONDS)
        elif now > self._healthy_until[pid] and child.restarts_on_exit and child.exit_code is None:
            self._on_notice(f"{child.name} does not respond, restarting it.")
            child.kill()
