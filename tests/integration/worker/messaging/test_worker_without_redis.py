"""Processes whose Redis refuses writes, or stops answering: they wait, say why, and continue by themselves."""

import asyncio
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.integration.worker.test_master_key import run_role
from tests.support.engine import Engine
from tests.support.platform import eventually
from tests.support.servers.redis_servers import ENCODED, RedisServer, running_server
from worker.local import embedded_servers
from worker.messaging import celery_app, pubsub
from worker.messaging.redis_connection import find_redis_problem

GIVEN_UP_SECONDS = 10


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_server(embedded_servers._valkey_program(), tmp_path / "redis") as found:
        yield found


@pytest.fixture
def redis_engine(engine: Engine, server: RedisServer) -> Engine:
    engine.configure(REDIS_URL=f"redis://:{ENCODED}@127.0.0.1:{server.port}/0")
    return engine


class Role:
    """A role that runs, and the lines that it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            self.lines.extend(output)

    def says(self, *words: str) -> bool:
        assert self.process.poll() is None, "".join(self.lines)
        return any(all(word in line for word in words) for line in list(self.lines))


@contextmanager
def running_role(engine: Engine, *role: str) -> Iterator[Role]:
    process = run_role(engine, *role, DREAMERY_WORKER_HEARTBEAT_TIMEOUT_SECONDS="3")
    try:
        yield Role(process)
    finally:
        process.kill()
        process.wait()


def workers(server: RedisServer) -> int:
    return int(server.client.hlen("dreamery:workers"))  # type: ignore[arg-type]


def test_worker_waits_at_its_start_and_after_a_failover(redis_engine: Engine, server: RedisServer) -> None:
    server.client.execute_command("REPLICAOF", "127.0.0.1", "1")
    with running_role(redis_engine, "worker") as worker:
        eventually(lambda: worker.says("waiting_for_redis", "it is a read-only replica"), what="the worker says why")
        server.client.execute_command("REPLICAOF", "NO", "ONE")
        eventually(lambda: workers(server) == 1, what="the worker runs")
        server.client.execute_command("REPLICAOF", "127.0.0.1", "1")
        waits = [line for line in worker.lines if "waiting_for_redis" in line]
        eventually(
            lambda: len([line for line in worker.lines if "waiting_for_redis" in line]) > len(waits),
            what="the worker waits again",
        )
        server.client.execute_command("REPLICAOF", "NO", "ONE")
        server.client.flushall()
        celery_app.enqueue_poll(redis_engine.add_account())
        eventually(lambda: workers(server) == 1, what="the worker is back")
        eventually(lambda: server.client.llen("fast") == 0, what="the worker takes messages again")
        assert worker.process.poll() is None
        assert not worker.says("Traceback")


def test_nobody_waits_long_for_a_server_that_stops_answering(redis_engine: Engine, server: RedisServer) -> None:
    """The connections stay open, and nothing comes back over them."""
    account = redis_engine.add_account()
    assert celery_app.enqueue_poll(account)
    lost: list[float] = []

    async def subscribe(ready: threading.Event) -> None:
        asyncio.get_running_loop().call_later(1.0, ready.set)
        began = time.monotonic()
        try:
            async for _ in pubsub.subscribe():
                began = time.monotonic()
        except redis.RedisError:
            lost.append(time.monotonic() - began)

    ready = threading.Event()
    subscriber = threading.Thread(target=lambda: asyncio.run(subscribe(ready)))
    subscriber.start()
    ready.wait()
    server.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert find_redis_problem() == "Redis does not respond"
        assert time.monotonic() - began < GIVEN_UP_SECONDS
        began = time.monotonic()
        assert not celery_app.enqueue_poll(account)
        assert time.monotonic() - began < GIVEN_UP_SECONDS
        began = time.monotonic()
        assert not celery_app.enqueue_poll(account)  # not tried again within the pause
        assert time.monotonic() - began < 1.0
        subscriber.join(60)
        assert lost
        assert lost[0] < GIVEN_UP_SECONDS + 5
    finally:
        server.process.send_signal(signal.SIGCONT)
    eventually(lambda: celery_app.enqueue_poll(account), what="messages are sent again")
