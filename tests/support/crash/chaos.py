"""Breaks parts of a running platform: kills, restarts, an emptied Redis, faults of the upstream.

Prints each action with its time. The seed makes the order of actions reproducible.
"""

import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Self

import httpx2
import redis

from worker.local.supervisor import Platform

# How often one run performs each action.
ACTION_COUNTS = {
    "kill a worker": 4,
    "kill all workers": 1,
    "kill api": 2,
    "kill scheduler": 2,
    "kill redis": 2,
    "empty redis": 2,
    "restart postgres": 1,
    "kill postgres": 2,
}
FAULTS: list[dict[str, object]] = [
    {},
    {},
    {"reset_before": 0.1, "reset_after": 0.1},
    {"http_500": 0.1, "empty": 0.1},
    {"html": 0.1, "latency": 0.3},
    {"latency": 1.0},
    {"http_500": 0.2, "reset_before": 0.1, "paths": ["/_media"]},
]


class Chaos:
    """Performs the actions of `ACTION_COUNTS` in a seeded order from a separate thread."""

    def __init__(self, platform: Platform, *, seed: int, pause: float) -> None:
        self.actions: list[str] = []
        self._platform = platform
        self._random = random.Random(seed)
        self._pause = pause
        self._stop = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="chaos")
        self.failure: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def finished(self) -> bool:
        """Whether all actions were performed."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        names = [name for name, count in ACTION_COUNTS.items() for _ in range(count)]
        self._random.shuffle(names)
        try:
            for name in names:
                if self._stop.wait(self._random.uniform(0.3, 1.7) * self._pause):
                    break
                self._perform(name)
                set_faults(self._platform, {**self._random.choice(FAULTS), "seed": self._random.randrange(1000)})
            set_faults(self._platform, {})
        except Exception as failure:  # noqa: BLE001 - the test reports it
            self.failure = failure

    def _perform(self, name: str) -> None:
        self.actions.append(name)
        print(f"  {time.monotonic() - self._started:6.2f} s  {name}")
        children = self._platform.children
        workers = sorted(child for child in children if child.startswith("worker"))
        actions: dict[str, Callable[[], object]] = {
            "kill a worker": children[self._random.choice(workers)].kill,
            "kill all workers": lambda: [children[worker].kill() for worker in workers],
            "kill api": children["api"].kill,
            "kill scheduler": children["worker-1"].kill,  # the first worker sends the tick
            "kill redis": children["redis"].kill,
            "empty redis": lambda: empty_redis(self._platform),
            "restart postgres": lambda: children["postgres"].send(signal.SIGINT),
            "kill postgres": children["postgres"].kill,
        }
        actions[name]()


def empty_redis(platform: Platform) -> None:
    """FLUSHALL. Does nothing when Redis is down."""
    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(platform.redis_url, socket_timeout=2) as client:
        client.flushall()


def set_faults(platform: Platform, faults: dict[str, object]) -> None:
    """Set the faults of the sandbox; an empty dict ends them."""
    answer = httpx2.post(
        f"{platform.sandbox_url}/_faults", headers=platform.sandbox_control_headers, json=faults, trust_env=False
    )
    assert answer.status_code == 200, answer.text
