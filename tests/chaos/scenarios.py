"""The five ways to break a running platform, and none. Each acts from its own thread until the load is over."""

import contextlib
import random
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
import redis

from tests.support.crash.chaos import empty_redis
from worker.local.supervisor import Platform

Act = Callable[[Platform, random.Random], None]
_READ_ONLY_SECONDS = 6.0


@dataclass(frozen=True)
class Scenario:
    """`act` is called every `every` seconds; `done` ends what the last one began."""

    name: str
    act: Act | None = None
    every: float = 0.0
    done: Callable[[Platform], None] | None = None


class Disturbance:
    """Performs a scenario from `start` to `stop`."""

    def __init__(self, scenario: Scenario, platform: Platform, *, seed: int = 1) -> None:
        self.times = 0
        self.failure: Exception | None = None
        self._scenario, self._platform, self._random = scenario, platform, random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="disturbance", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the disturbance and wait until nothing is disturbed any more."""
        self._over.set()
        self._thread.join()
        if self._scenario.done is not None:
            self._scenario.done(self._platform)

    def _run(self) -> None:
        act = self._scenario.act
        try:
            while act is not None and not self._over.wait(self._scenario.every):
                act(self._platform, self._random)
                self.times += 1
        except Exception as failure:  # noqa: BLE001 - reported with the row
            self.failure = failure


def _restart_postgres(platform: Platform, _random: random.Random) -> None:
    platform.children["postgres"].send(signal.SIGINT)


def _end_backends(platform: Platform, _random: random.Random) -> None:
    """End every database connection of the platform."""
    with contextlib.suppress(psycopg.Error), psycopg.connect(platform.database_url, connect_timeout=2) as connection:
        connection.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()"""
        )


def _kill_worker(platform: Platform, rng: random.Random) -> None:
    workers = sorted(name for name in platform.children if name.startswith("worker-"))
    platform.children[rng.choice(workers)].kill()


def _kill_api_and_scheduler(platform: Platform, _random: random.Random) -> None:
    platform.children["api"].kill()
    platform.children["scheduler"].kill()


def _break_redis(platform: Platform, rng: random.Random) -> None:
    """Empty it, and every second time let it refuse writes for a while, as after a failover to a replica."""
    empty_redis(platform)
    if rng.random() < 0.5:
        _send(platform, "REPLICAOF", "127.0.0.1", "1")
        threading.Event().wait(_READ_ONLY_SECONDS)
        _heal_redis(platform)


def _heal_redis(platform: Platform) -> None:
    _send(platform, "REPLICAOF", "NO", "ONE")


def _send(platform: Platform, *command: str) -> None:
    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(platform.redis_url, socket_timeout=2) as client:
        client.execute_command(*command)


SCENARIOS = (
    Scenario("undisturbed"),
    Scenario("Postgres restarts", _restart_postgres, every=12.0),
    Scenario("database connections killed", _end_backends, every=2.0),
    Scenario("workers killed", _kill_worker, every=5.0),
    Scenario("API and scheduler killed", _kill_api_and_scheduler, every=15.0),
    Scenario("Redis emptied, read-only", _break_redis, every=4.0, done=_heal_redis),
)
