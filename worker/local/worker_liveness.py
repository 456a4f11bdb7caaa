"""Kills unresponsive workers and schedulers of this machine, so that the process supervisor restarts them.

Each worker records its status in a file (`worker/messaging/heartbeat.py`), so the supervisor needs no Redis client.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from worker.local.processes import Child

# A new process imports modules for a while before it processes its first heartbeat.
_STARTUP_SECONDS = 60.0
# A scheduler without a turn ends itself (`worker/messaging/celery_beat.py`); one that cannot is killed a little later.
_SCHEDULER_SECONDS = 45.0


def responds_ok(host: str, port: int, path: str) -> bool:
    """Return whether a GET to a server of this machine returns 200."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            connection.sendall(request.encode("ascii"))
            with connection.makefile("rb") as answer:
                return answer.readline(200).split()[1:2] == [b"200"]
    except OSError:
        return False


class WorkerLivenessMonitor(threading.Thread):
    """Checks the status of each worker process and kills workers that have processed no heartbeat for `seconds`.

    Time without Redis does not count, as heartbeats are messages.
    """

    def __init__(
        self, workers: Iterable[Child], *, status_dir: Path, seconds: float, on_notice: Callable[[str], None]
    ) -> None:
        super().__init__(name="dreamery-liveness", daemon=True)
        self._workers = list(workers)
        self._status_dir = status_dir
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
            for child in self._workers:
                self._check(child)
            self._remove_old_files()

    def _check(self, child: Child) -> None:
        now, pid = time.monotonic(), child.pid
        responsive = self._is_responsive(pid, now)
        if responsive is None:
            self._healthy_until.pop(pid, None)
        elif responsive:
            self._healthy_until[pid] = now + self._seconds
        elif pid not in self._healthy_until:
            self._healthy_until[pid] = now + max(self._seconds, _STARTUP_SECONDS)
        elif now > self._healthy_until[pid] and child.restarts_on_exit and child.exit_code is None:
            self._on_notice(f"{child.name} does not respond, restarting it.")
            child.kill()

    def _is_responsive(self, pid: int, now: float) -> bool | None:
        """Return whether the worker processes heartbeats; None = it cannot, because Redis does not respond to it."""
        try:
            status = json.loads((self._status_dir / f"{pid}.json").read_text("utf-8"))
            recorded, consumed = now - status["recorded_at"], now - status["consumed_at"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if recorded > self._seconds:
            return False
        ticked_at = None if status["leaving"] else status.get("ticked_at")
        if ticked_at is not None and now - ticked_at > max(3 * self._seconds, _SCHEDULER_SECONDS):
            return False
        if not status["redis"]:
            return None
        return bool(status["occupied"] or status["leaving"] or consumed <= self._seconds)

    def _remove_old_files(self) -> None:
        kept = {f"{child.pid}.json" for child in self._workers}
        for file in self._status_dir.glob("*.json"):
            if file.name not in kept:
                file.unlink(missing_ok=True)
