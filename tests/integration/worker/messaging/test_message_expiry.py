"""Old messages are not handled, by the clock of Redis: hosts whose clocks differ understand each other."""

import base64
import json
from typing import Any
from uuid import uuid4

import pytest
from celery import states
from celery.app.trace import build_tracer
from redis import Redis

from tests.support.engine import Engine
from tests.support.platform import eventually
from tests.support.servers.fake_clock import use_clock
from worker.messaging import celery_app, message_expiry
from worker.messaging.celery_beat import PacedScheduler
from worker.messaging.message_expiry import MESSAGE_EXPIRES_SECONDS, BrokerClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> BrokerClock:
    new = BrokerClock()
    monkeypatch.setattr(message_expiry, "broker_clock", new)
    return new


def take(engine: Engine, queue: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Remove a message. Return its headers and its keyword arguments."""
    raw = engine.redis.rpop(queue)
    assert isinstance(raw, bytes | str)
    envelope = json.loads(raw)
    return envelope["headers"], json.loads(base64.b64decode(envelope["body"]))[1]


def handle(headers: dict[str, Any], ids: dict[str, Any]) -> str | None:
    """Run the task as a worker does with a message. Return the state."""
    task = celery_app.app.tasks[headers["task"]]
    traced = build_tracer(task.name, task, app=celery_app.app)(headers["id"], (), ids, request=headers)
    return states.IGNORED if traced.info is not None and traced.info.state == states.IGNORED else states.SUCCESS


def redis_time(client: Redis) -> float:
    seconds, microseconds = client.time()
    return float(seconds) + float(microseconds) / 1e6


def test_message_has_a_time_of_redis_and_none_of_this_machine(engine: Engine, clock: BrokerClock) -> None:
    celery_app.enqueue_check(uuid4())
    headers, _ = take(engine, "bulk")
    assert headers["expires"] is None, "Celery would compare it with the clock of another machine"
    left = float(headers["dreamery_until"]) - redis_time(engine.redis)
    assert MESSAGE_EXPIRES_SECONDS - 5 < left <= MESSAGE_EXPIRES_SECONDS + 0.1


def test_scheduled_messages_have_one_too(engine: Engine, clock: BrokerClock) -> None:
    scheduler, found = PacedScheduler(celery_app.app), dict[str, float]()
    eventually(lambda: (scheduler.tick(), engine.redis.llen("fast") >= 2)[1], what="tick and sweep are sent")
    while engine.redis.llen("fast"):
        headers, _ = take(engine, "fast")
        found[headers["task"]] = float(headers["dreamery_until"]) - redis_time(engine.redis)
        assert headers["expires"] is None
    assert found["dreamery.tick"] <= 2.1
    assert found["dreamery.sweep"] <= 4.1
    assert min(found.values()) > 0


def test_fresh_message_is_handled_and_an_old_one_is_not(engine: Engine, clock: BrokerClock) -> None:
    for age, state in ((0, states.SUCCESS), (MESSAGE_EXPIRES_SECONDS + 1, states.IGNORED)):
        celery_app.enqueue_check(uuid4())
        headers, ids = take(engine, "bulk")
        headers["dreamery_until"] -= age
        assert handle(headers, ids) == state


def test_message_of_an_older_version_is_handled(engine: Engine, clock: BrokerClock) -> None:
    celery_app.enqueue_check(uuid4())
    headers, ids = take(engine, "bulk")
    del headers["dreamery_until"]
    assert handle(headers, ids) == states.SUCCESS


def test_clock_of_redis_is_asked_for_again_and_survives_its_absence(
    engine: Engine, clock: BrokerClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    use_clock(monkeypatch, now, message_expiry)
    first = clock.now()
    assert first is not None
    assert abs(first - redis_time(engine.redis)) < 5
    now[0] += 20  # Redis moved to a machine whose clock is 20 s behind: not noticed at once
    assert clock.now() == pytest.approx(first + 20)
    now[0] += 20
    again = clock.now()
    assert again is not None
    assert again < first + 10
    engine.configure(REDIS_URL="redis://127.0.0.1:1/0")
    now[0] += 40
    assert clock.now() == pytest.approx(again + 40), "the last known clock"
    assert BrokerClock().now() is None
