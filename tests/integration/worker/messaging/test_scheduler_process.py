"""The scheduler as a process: it ignores changes of the wall clock, ends when it is stuck, and is watched."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import Engine
from tests.support.platform import clean_env, eventually
from worker.local import process_commands
from worker.messaging import heartbeat
from worker.messaging.celery_app import app
from worker.messaging.celery_beat import PacedScheduler

# Runs the module named by its arguments with a wall clock that the file moves.
MOVED_CLOCK = """
import datetime, pathlib, runpy, sys, time
moved, real_time = pathlib.Path(sys.argv[1]), time.time
shift = lambda: float(moved.read_text() or 0)
time.time = lambda: real_time() + shift()
import celery.app.base, celery.beat
real_now = celery.app.base.Celery.now
celery.app.base.Celery.now = lambda self: real_now(self) + datetime.timedelta(seconds=shift())
if {stuck}:
    from worker.messaging import celery_beat
    celery_beat._STUCK_SECONDS = 1.0
    celery_beat.PacedScheduler._send_due = lambda self: time.sleep(3600)
del sys.argv[:2]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


class Scheduler:
    """A scheduler process, and the clock that it sees."""

    def __init__(self, engine: Engine, folder: Path, *, stuck: bool = False) -> None:
        self.engine, self.clock = engine, folder / "clock"
        self.clock.write_text("0")
        script = MOVED_CLOCK.replace("{stuck}", str(stuck))
        env = clean_env(**{**engine.env, "DREAMERY_WORKER_STATUS_DIR": str(folder / "status")})
        command = [sys.executable, "-P", "-c", script, str(self.clock), *process_commands.scheduler()]
        self.process = subprocess.Popen(command, env=env, cwd=folder, stderr=subprocess.PIPE, text=True)

    def ticks(self) -> int:
        messages = self.engine.redis.lrange("fast", 0, -1)
        return sum(json.loads(message)["headers"]["task"] == "dreamery.tick" for message in messages)

    def sends_more_ticks(self, count: int = 4) -> None:
        before = self.ticks()
        eventually(lambda: self.ticks() >= before + count, within=30, what="more ticks")


@pytest.fixture
def scheduler(engine: Engine, tmp_path: Path) -> Iterator[Scheduler]:
    found = Scheduler(engine, tmp_path)
    yield found
    found.process.kill()
    found.process.communicate()


@pytest.mark.parametrize("seconds", [-60, -3600, -86400 * 400, 3600])
def test_moved_wall_clock_does_not_stop_the_ticks(scheduler: Scheduler, seconds: int) -> None:
    scheduler.sends_more_ticks()
    scheduler.clock.write_text(str(seconds))
    scheduler.sends_more_ticks()
    assert scheduler.process.poll() is None


def test_clock_that_jumps_after_a_forward_jump(scheduler: Scheduler) -> None:
    for seconds in (7200, -7200, 0):
        scheduler.clock.write_text(str(seconds))
        scheduler.sends_more_ticks()


def test_scheduler_records_its_turns_for_the_supervisor(scheduler: Scheduler, tmp_path: Path) -> None:
    file = tmp_path / "status" / f"{scheduler.process.pid}.json"
    eventually(file.exists, what="a status")
    status = json.loads(file.read_text())
    assert status["ticked_at"] <= time.monotonic()
    assert status["occupied"]


def test_stuck_scheduler_ends(engine: Engine, tmp_path: Path) -> None:
    engine.configure(WORKER_HEARTBEAT_TIMEOUT_SECONDS="2")
    stuck = Scheduler(engine, tmp_path, stuck=True)
    _, output = stuck.process.communicate(timeout=60)
    assert stuck.process.returncode == 1
    assert "scheduler_stuck" in output


def test_turn_without_redis_counts_as_a_turn(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat._status, "ticked_at", None)
    scheduler = PacedScheduler(app)
    monkeypatch.setattr(scheduler.connection, "ensure_connection", _refuse)
    scheduler.tick()
    age = heartbeat.seconds_since_scheduler_turn()
    monkeypatch.undo()
    assert age is not None


def _refuse(**options: object) -> None:
    assert options["max_retries"], "without a limit it would wait for Redis without end"
    raise ConnectionRefusedError
