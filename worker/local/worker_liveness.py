"""Ends workers of this machine that are alive but deaf, so that the keeper starts them anew."""

import http.client
import threading
import time
from collections.abc import Callable, Iterable

from worker.local.processes import Child
from worker.messaging import heartbeat
from worker.messaging.pubsub import BUS_ERRORS

# A process that has just been started imports for a while before it hears anything.
_START_PATIENCE = 60.0


def answers(host: str, port: int, path: str) -> bool:
    """Whether a server of this machine answers a GET with 200."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Ears(threading.Thread):
    """Looks now and then whether each worker process has heard itself; kills those that have not for `seconds`.

    Only time in which Redis answered counts, for without it nobody hears anything.
    """

    def __init__(
        self, workers: Iterable[Child], *, redis_url: str, seconds: float, on_notice: Callable[[str], None]
    ) -> None:
        super().__init__(name="dreamery-ears", daemon=True)
        self._workers = list(workers)
        self._redis_url = redis_url
        self._seconds = seconds
        self._on_notice = on_notice
        self._well_until: dict[int, float] = {}
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """The thread."""
        while not self._stopped.wait(self._seconds / 5):
            try:
                found = heartbeat.workers(self._redis_url)
            except BUS_ERRORS:
                self._well_until.clear()
                continue
            hearing = {worker.pid for worker in found if worker.hears_within(self._seconds)}
            for child in self._workers:
                self._look_at(child, hearing)

    def _look_at(self, child: Child, hearing: set[int]) -> None:
        now, pid = time.monotonic(), child.pid
        if pid in hearing:
            self._well_until[pid] = now + self._seconds
        elif pid not in self._well_until:
            self._well_until[pid] = now + max(self._seconds, _START_PATIENCE)
        elif now > self._well_until[pid] and child.kept and child.exit_code is None:
            self._on_notice(f"{child.name} takes no messages, ending it.")
            child.kill9()
