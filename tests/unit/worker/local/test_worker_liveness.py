"""The monitor that kills workers which process no messages, by the status files that workers write."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.platform import clean_env
from worker.local.processes import Child, ChildSpec, ProcessSupervisor
from worker.local.worker_liveness import WorkerLivenessMonitor

SECONDS = 10.0


class Site:
    """One worker process, its status file and the monitor, without its thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "workers"
        self.folder.mkdir()
        self.supervisor = ProcessSupervisor()
        command = (sys.executable, "-c", "import threading; threading.Event().wait()")
        spec = ChildSpec(name="worker-1", command=command, env=clean_env(), cwd=folder, log_path=None)
        self.child: Child = self.supervisor.start(spec)
        self.child.restarts_on_exit = True
        self.notices: list[str] = []
        self.monitor = WorkerLivenessMonitor(
            [self.child], status_dir=self.folder, seconds=SECONDS, on_notice=self.notices.append
        )

    def record(self, *, age: float = 0.0, consumed: float = 0.0, **values: float) -> None:
        now = time.monotonic()
        status: dict[str, Any] = {"occupied": False, "leaving": False, "redis": True, **values}
        status |= {"recorded_at": now - age, "consumed_at": now - consumed}
        (self.folder / f"{self.child.pid}.json").write_text(json.dumps(status))

    def check_after_grace(self) -> list[str]:
        """Check twice; the times that the monitor allows are over in between."""
        self.monitor._check(self.child)
        for pid in self.monitor._healthy_until:
            self.monitor._healthy_until[pid] = 0.0
        self.monitor._check(self.child)
        return self.notices


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.supervisor.close()


def test_worker_that_consumes_messages_is_kept(site: Site) -> None:
    site.record(age=1, consumed=2)
    assert site.check_after_grace() == []


def test_worker_that_consumes_nothing_is_killed(site: Site) -> None:
    site.record(age=1, consumed=SECONDS + 1)
    assert site.check_after_grace() == ["worker-1 does not respond, restarting it."]
    site.child.wait()


def test_suspended_worker_is_killed(site: Site) -> None:
    site.record(age=SECONDS + 1, occupied=True)
    assert site.check_after_grace() == ["worker-1 does not respond, restarting it."]


def test_worker_without_a_status_file_is_killed_after_its_start(site: Site) -> None:
    site.monitor._check(site.child)
    assert site.monitor._healthy_until[site.child.pid] > time.monotonic() + 50, "imports take a while"
    assert site.check_after_grace() == ["worker-1 does not respond, restarting it."]


@pytest.mark.parametrize("state", ["occupied", "leaving"])
def test_worker_that_cannot_consume_now_is_kept(site: Site, state: str) -> None:
    site.record(consumed=SECONDS + 1, **{state: True})
    assert site.check_after_grace() == []


def test_time_without_redis_does_not_count(site: Site) -> None:
    site.record(consumed=SECONDS + 1, redis=False)
    assert site.check_after_grace() == []
    site.record(consumed=SECONDS + 1)
    site.monitor._check(site.child)
    assert site.notices == [], "it gets time to reconnect"


def test_files_of_ended_workers_are_removed(site: Site) -> None:
    site.record()
    (site.folder / "1.json").write_text("{}")
    site.monitor._remove_old_files()
    assert [file.name for file in site.folder.iterdir()] == [f"{site.child.pid}.json"]


def test_worker_whose_scheduler_is_stuck_is_killed(site: Site) -> None:
    site.record(age=1, consumed=2, ticked_at=time.monotonic() - 1000)
    assert site.check_after_grace() == ["worker-1 does not respond, restarting it."]


def test_scheduler_that_takes_its_turns_is_kept(site: Site) -> None:
    site.record(occupied=True, ticked_at=time.monotonic() - 3 * SECONDS + 1)
    assert site.check_after_grace() == []


def test_stuck_scheduler_is_killed_while_redis_is_away(site: Site) -> None:
    site.record(occupied=True, redis=False, ticked_at=time.monotonic() - 1000)
    assert site.check_after_grace() == ["worker-1 does not respond, restarting it."]


def test_scheduler_of_a_stopping_worker_has_no_more_turns(site: Site) -> None:
    site.record(leaving=True, ticked_at=time.monotonic() - 1000)
    assert site.check_after_grace() == []
