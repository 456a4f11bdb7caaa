"""Runs one scenario on one target and returns its row."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.bench.engine.counters import Counters, Counts
from tests.bench.engine.processes import Usage, read_usage
from tests.bench.engine.scenarios import Scenario
from tests.bench.engine.targets import Target
from tests.bench.load import Call, Plan
from tests.bench.stand_in.__main__ import MEDIA

_ROOT = Path(__file__).resolve().parents[3]
_WARM_JOBS = 40
_SAMPLE_SECONDS = 3.0


@dataclass(frozen=True)
class Pauses:
    """Seconds after the start, of the idle measurement, and for counters that lag behind after the warm-up and the row.

    A platform caches what it learned from the warm-up for half a minute, and idle connections of Postgres report their
    commits within ten seconds.
    """

    start: float = 3.0
    idle: float = 15.0
    settle: float = 11.0


@dataclass
class Row:
    """The figures of one scenario on one target. Times in seconds; None = not measurable there."""

    scenario: str
    target: str
    jobs: int = 0
    failed: int = 0
    violations: list[str] = field(default_factory=list)
    wall: float = 0.0
    jobs_per_second: float = 0.0
    delay: tuple[float, float] | None = None  # p50, p95, from the stand-in's finish to the whole answer
    latency: tuple[float, float] = (0.0, 0.0)
    calls_per_job: float | None = None
    downloads_per_job: float | None = None
    cpu_ms_per_job: float | None = None
    cpu_by_process: dict[str, float] = field(default_factory=dict)
    idle_cpu_ms_per_second: float | None = None
    pss_idle_mb: float | None = None  # after the start, before the first job
    pss_warm_mb: float | None = None  # idle after the warm-up
    pss_busy_mb: float | None = None
    pss_by_process: dict[str, float] = field(default_factory=dict)
    per_job: dict[str, float] | None = None  # commits, wal_kb, redis_commands, messages; idle part taken off
    idle_per_second: dict[str, float] | None = None
    load_before: float = 0.0
    load_during: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON data."""
        return asdict(self)


class _Sampler:
    """Watches memory and machine load while a scenario runs."""

    def __init__(self, pid: int | None) -> None:
        self.most = Usage()
        self.load = 0.0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            self.sample()

    def sample(self) -> None:
        self.load = max(self.load, os.getloadavg()[0])
        if self._pid is not None:
            usage = read_usage(self._pid, memory=True)
            if usage.total_pss_mb > self.most.total_pss_mb:
                self.most = usage

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self.sample()


def measure(target: Target, scenario: Scenario, *, stand_in: str, pauses: Pauses) -> Row:
    """Warm up, measure the idle target, run the scenario, read everything."""
    row = Row(scenario.name, target.name, load_before=round(os.getloadavg()[0], 1))
    counters = Counters(target.database_url, target.redis_url) if target.database_url else None
    try:
        if target.pid is not None:
            time.sleep(pauses.start)
            row.pss_idle_mb = round(read_usage(target.pid, memory=True).total_pss_mb)
        _reset(stand_in, scenario)
        warm = scenario.requests(target.keys, max(min(_WARM_JOBS, scenario.callers), 6))
        send(Plan(target.url, min(scenario.callers, len(warm)), warm))
        time.sleep(pauses.settle)
        idle = _measure_idle(target, counters, row, pauses.idle)
        _reset(stand_in, scenario)
        requests = scenario.requests(target.keys)
        before, start = _usage(target), counters.read() if counters else None
        sampler, started = _Sampler(target.pid), time.time()
        with _busy_processes(scenario.busy_processes):
            calls = send(Plan(target.url, scenario.callers, requests))
        after = _usage(target)
        sampler.close()
        ledger = httpx.get(f"{stand_in}/_ledger", timeout=60, trust_env=False).json()
        _add_speed(row, calls, ledger, scenario)
        _add_cost(row, before, after, sampler)
        if counters and start:
            time.sleep(pauses.settle)
            used = counters.read() - start - idle.times(time.time() - started)
            row.per_job = {name: round(value / row.jobs, 2) for name, value in asdict(used).items()}
    finally:
        if counters:
            counters.close()
    return row


def send(plan: Plan) -> list[Call]:
    """Run a plan in the load generator's process."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.load"],
        input=plan.as_json(), capture_output=True, text=True, check=True, cwd=_ROOT,
    )  # fmt: skip
    return [Call(**json.loads(line)) for line in done.stdout.splitlines()]


def _reset(stand_in: str, scenario: Scenario) -> None:
    httpx.post(f"{stand_in}/_reset", json=scenario.durations, trust_env=False).raise_for_status()


def _usage(target: Target) -> Usage:
    return read_usage(target.pid, memory=False) if target.pid is not None else Usage()


def _measure_idle(target: Target, counters: Counters | None, row: Row, seconds: float) -> Counts:
    """Fill the idle figures of the row; return the counts per second."""
    first, start, began = _usage(target), counters.read() if counters else None, time.time()
    time.sleep(seconds)
    passed = time.time() - began
    if target.pid is not None:
        usage = read_usage(target.pid, memory=True)
        row.pss_warm_mb = round(usage.total_pss_mb)
        row.idle_cpu_ms_per_second = round((usage.total_cpu_ms - first.total_cpu_ms) / passed, 1)
    if counters is None or start is None:
        return Counts()
    idle = (counters.read() - start).times(1 / passed)
    row.idle_per_second = {name: round(value, 2) for name, value in asdict(idle).items()}
    return idle


@contextlib.contextmanager
def _busy_processes(number: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _add_speed(row: Row, calls: list[Call], ledger: dict[str, Any], scenario: Scenario) -> None:
    finished = {submit["prompt"]: submit["finish_at"] for submit in ledger["submits"]}
    good = [call for call in calls if call.good]
    delays = [call.answered - finished[call.prompt] for call in good if call.prompt in finished]
    row.jobs = len(calls)
    row.failed = len(calls) - len(good)
    row.wall = round(max(call.answered for call in calls) - min(call.sent for call in calls), 2)
    row.jobs_per_second = round(len(good) / row.wall, 1)
    row.latency = _p50_p95([call.answered - call.sent for call in calls])
    row.delay = _p50_p95(delays) if delays else None
    upstream = sum(number for path, number in ledger["calls"].items() if path != MEDIA)
    row.calls_per_job = round(upstream / row.jobs, 2) if ledger["submits"] else None
    row.downloads_per_job = round(ledger["calls"].get(MEDIA, 0) / row.jobs, 2)
    row.violations = find_violations(ledger, scenario, {call.prompt for call in good})


def _add_cost(row: Row, before: Usage, after: Usage, sampler: _Sampler) -> None:
    row.load_during = round(sampler.load, 1)
    if after.cpu_ms:
        row.cpu_by_process = {
            role: round((ms - before.cpu_ms.get(role, 0.0)) / row.jobs, 2) for role, ms in sorted(after.cpu_ms.items())
        }
        row.cpu_ms_per_job = round((after.total_cpu_ms - before.total_cpu_ms) / row.jobs, 1)
        row.pss_busy_mb = round(sampler.most.total_pss_mb)
        row.pss_by_process = {role: round(mb) for role, mb in sorted(sampler.most.pss_mb.items())}


def find_violations(ledger: dict[str, Any], scenario: Scenario, succeeded: set[str]) -> list[str]:
    """Return what the ledger shows against the promises: limits, and one submit per job."""
    found = []
    if ledger["totals"]["duplicate_submit_ids"]:
        found.append(f"{ledger['totals']['duplicate_submit_ids']} submit ids twice")
    submits = Counter(submit["prompt"] for submit in ledger["submits"])
    if twice := sum(number > 1 for number in submits.values()):
        found.append(f"{twice} jobs paid twice")
    if ledger["submits"] and (missing := len(succeeded - submits.keys())):
        found.append(f"{missing} successes without a submit")
    if scenario.limits is None:
        return found
    for name, account in ledger["accounts"].items():
        if (most := max(account["max_images"], account["max_videos"])) > scenario.limits.slots:
            found.append(f"{name} had {most} jobs in flight")
        times = sorted(submit["at"] for submit in ledger["submits"] if submit["account"] == name)
        most = max((bisect_left(times, at + 60) - number for number, at in enumerate(times)), default=0)
        if most > scenario.limits.per_minute + 1:
            found.append(f"{name} had {most} submits in a minute")
    return found


def _p50_p95(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return tuple(round(ordered[min(int(len(ordered) * share), len(ordered) - 1)], 3) for share in (0.5, 0.95))  # type: ignore[return-value]
