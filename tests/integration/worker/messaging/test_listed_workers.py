"""The list of workers: one that was killed disappears after a minute, one that is unresponsive stays."""

import json

import pytest

from tests.integration.worker.test_master_key import run_role
from tests.support.engine import Engine
from tests.support.platform import eventually
from worker.messaging import heartbeat

WORKERS = "dreamery:workers"


def move_back(engine: Engine, field: bytes, *, published: float, consumed: float | None = None) -> None:
    """Make the worker's last status this many seconds older."""
    entry = json.loads(engine.redis.hget(WORKERS, field))
    entry["told"] -= published
    entry["heard"] -= published if consumed is None else consumed
    engine.redis.hset(WORKERS, field, json.dumps(entry))


def listed() -> list[str]:
    return [worker.name.partition("@")[0] for worker in heartbeat.list_workers()]


def test_killed_worker_disappears_after_a_minute(engine: Engine) -> None:
    worker = run_role(engine, "worker", "--name", "victim")
    eventually(lambda: engine.redis.hlen(WORKERS), what="the worker runs")
    worker.kill()
    worker.communicate()
    [field] = engine.redis.hkeys(WORKERS)
    move_back(engine, field, published=45)
    [found] = heartbeat.list_workers()
    assert (found.name.partition("@")[0], found.is_responsive) == ("victim", False)
    move_back(engine, field, published=20)
    assert listed() == []
    assert engine.redis.hlen(WORKERS) == 0


def publish(engine: Engine, name: str) -> bytes:
    heartbeat.publish_status(f"{name}@here", queues=["fast"], threads=4)
    [field] = [key for key in engine.redis.hkeys(WORKERS) if key.startswith(name.encode())]
    return bytes(field)


def test_worker_that_publishes_but_consumes_nothing_stays(engine: Engine) -> None:
    move_back(engine, publish(engine, "mute"), published=5, consumed=3000)
    [found] = heartbeat.list_workers()
    assert not found.is_responsive


@pytest.mark.parametrize(("timeout", "seconds", "kept"), [("15", 55, True), ("15", 65, False), ("60", 115, True)])
def test_time_follows_a_long_heartbeat_timeout(engine: Engine, timeout: str, seconds: float, kept: bool) -> None:
    engine.configure(WORKER_HEARTBEAT_TIMEOUT_SECONDS=timeout)
    move_back(engine, publish(engine, "slow"), published=seconds)
    assert bool(listed()) is kept
