"""The scheduler as a thread of a worker: what it sends, how often, and its end."""

import itertools
import json
import threading
import time
from collections import Counter

import pytest
import redis

from tests.support.engine import Engine
from tests.support.platform import eventually
from worker.db.engine import transaction
from worker.db.scheduling.open_work import has_open_work
from worker.messaging import celery_beat, heartbeat
from worker.messaging.celery_app import app
from worker.messaging.celery_beat import PacedScheduler, SchedulerThread


def sent_messages(broker: redis.Redis) -> Counter[str]:
    """The messages in the queues, by task."""
    found: Counter[str] = Counter()
    for queue in ("fast", "bulk"):
        messages = broker.lrange(queue, 0, -1)
        found.update(json.loads(message)["headers"]["task"] for message in messages)
    return found


def test_thread_sends_tick_and_sweep_until_stopped(engine: Engine) -> None:
    heartbeat._status.seen.clear()  # another test may have recorded one a moment ago
    thread = SchedulerThread(lambda: True)
    thread.start()
    eventually(lambda: sent_messages(engine.redis)["dreamery.tick"] >= 3, what="ticks")
    assert sent_messages(engine.redis)["dreamery.sweep"] >= 1
    assert heartbeat.seconds_since("scheduler") is not None
    assert [one.name for one in threading.enumerate()].count("scheduler-watch") == 1
    thread.request_stop()
    eventually(lambda: not thread.is_running, what="the end of the thread")
    watches = lambda: [one for one in threading.enumerate() if one.name == "scheduler-watch"]  # noqa: E731
    eventually(lambda: not watches(), what="nothing watches a scheduler that was stopped")


def due_times(scheduler: PacedScheduler, *, seconds: float) -> dict[str, list[float]]:
    """The times at which the entries are due within this time, starting now, without waiting."""
    now = time.monotonic()
    found: dict[str, list[float]] = {}
    for name, entry in scheduler.schedule.items():
        times = found.setdefault(name, [])
        for _ in itertools.count():
            due = scheduler._due_at(name, entry)
            if due > now + seconds:
                break
            times.append(due - now)
            scheduler._sent[name] = max(due, now)
    return found


def test_tick_and_sweep_are_rare_while_nothing_is_open(engine: Engine) -> None:
    engine.configure(WORKER_HEARTBEAT_TIMEOUT_SECONDS="15")
    scheduler = PacedScheduler(app)
    counts = {name: len(times) for name, times in due_times(scheduler, seconds=30).items()}
    assert 58 <= counts["tick"] <= 62
    assert 14 <= counts["sweep"] <= 17
    idle = PacedScheduler(app)
    idle._open = False
    times = due_times(idle, seconds=30)
    assert 5 <= len(times["tick"]) <= 8
    assert len(times["sweep"]) <= 3
    assert times["tick"][0] <= 5, "also the first idle tick is well within the heartbeat timeout"
    assert times["refresh"][0] < 10, "what is sent each minute does not start anew with each worker"


def test_scheduler_follows_the_open_work(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks again while it sends ticks, so it rests after the last job, and it wakes up for the next one."""
    interval = app.conf.beat_schedule["tick"]["schedule"]
    monkeypatch.setattr(celery_beat, "CHECK_SECONDS", 3 * interval)
    monkeypatch.setattr(celery_beat, "RECHECK_SECONDS", 3 * interval)
    is_open = True
    kind = type("Scheduler", (PacedScheduler,), {"has_open_work": staticmethod(lambda: is_open)})
    scheduler = kind(app)
    for is_open in (True, False, True, False):
        deadline = time.monotonic() + 10
        while scheduler._open is not is_open:
            assert time.monotonic() < deadline, f"it does not notice that open = {is_open}"
            time.sleep(min(scheduler.tick(), interval / 10))


def test_work_is_open_when_the_database_does_not_respond(engine: Engine) -> None:
    class Unreachable(PacedScheduler):
        @staticmethod
        def has_open_work() -> bool:
            raise OSError("no route to the database")

    scheduler = Unreachable(app)
    scheduler._open = False
    scheduler._check(time.monotonic())
    assert scheduler._open


def test_thread_survives_a_failure(engine: Engine) -> None:
    calls = []

    class Failing(PacedScheduler):
        def _send_due(self) -> float:
            calls.append(1)
            raise RuntimeError("unexpected")

    scheduler = Failing(app)
    assert scheduler.tick() > 0
    assert scheduler.tick() > 0
    assert len(calls) == 2


def test_unfinished_job_is_open_work(engine: Engine) -> None:
    def is_open() -> bool:
        with transaction() as tx:
            return has_open_work(tx)

    assert not is_open()
    engine.add_job()
    assert is_open()
