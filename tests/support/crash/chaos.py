"""The hand that breaks things while a platform works: kills, restarts, emptied Redis, faults of the upstream.

Every blow is printed with its time, so that a failed run tells what happened; the seed repeats the order of the blows.
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

# How often each blow falls in one storm.
DECK = {
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
    """Deals the blows of `DECK` in a seeded order, from a thread of its own."""

    def __init__(self, platform: Platform, *, seed: int, pause: float) -> None:
        self.blows: list[str] = []
        self._platform = platform
        self._dice = random.Random(seed)
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
    def over(self) -> bool:
        """Whether all blows have fallen."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        deck = [name for name, count in DECK.items() for _ in range(count)]
        self._dice.shuffle(deck)
        try:
            for name in deck:
                if self._stop.wait(self._dice.uniform(0.3, 1.7) * self._pause):
                    break
                self._strike(name)
                set_faults(self._platform, {**self._dice.choice(FAULTS), "seed": self._dice.randrange(1000)})
            set_faults(self._platform, {})
        except Exception as failure:  # noqa: BLE001 - shown by the test
            self.failure = failure

    def _strike(self, name: str) -> None:
        self.blows.append(name)
        print(f"  {time.monotonic() - self._started:6.2f} s  {name}")
        children = self._platform.children
        workers = sorted(child for child in children if child.startswith("worker"))
        blows: dict[str, Callable[[], object]] = {
            "kill a worker": children[self._dice.choice(workers)].kill9,
            "kill all workers": lambda: [children[worker].kill9() for worker in workers],
            "kill api": children["api"].kill9,
            "kill scheduler": children["scheduler"].kill9,
            "kill redis": children["redis"].kill9,
            "empty redis": lambda: empty_redis(self._platform),
            "restart postgres": lambda: children["postgres"].send(signal.SIGINT),
            "kill postgres": children["postgres"].kill9,
        }
        blows[name]()


def empty_redis(platform: Platform) -> None:
    """FLUSHALL; a Redis that is down has nothing to lose."""
    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(platform.redis_url, socket_timeout=2) as client:
        client.flushall()


def set_faults(platform: Platform, faults: dict[str, object]) -> None:
    """Tell the sandbox what to do wrong from now on; nothing when empty."""
    answer = httpx2.post(f"{platform.sandbox_url}/_faults", json=faults, trust_env=False)
    assert answer.status_code == 200, answer.text
