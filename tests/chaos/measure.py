"""Runs one scenario under one load on a new platform, and reads from both sides what came of it."""

import asyncio
import contextlib
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.chaos.loads import Clients, Load
from tests.chaos.scenarios import Disturbance, Scenario
from tests.support.crash.load_clients import ClientRequest, Outcome
from tests.support.crash.platform_snapshot import FINAL, PlatformSnapshot
from worker.local.supervisor import Platform, PlatformOptions

_WORKERS = 2
# After the load and its disturbance, every job must have ended within this time: a lease and a grace time, and then
# the job itself.
_RECOVERY_SECONDS = 240.0
_PROBE_SECONDS = 0.1
_SETTINGS = {
    "DREAMERY_REQUESTS_PER_MINUTE": "0",
    "DREAMERY_ACCOUNT_MAX_IMAGES": "3",
    "DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "600",
    "DREAMERY_MAX_ATTEMPTS": "10",
}
# As in the crash tests: call < watchdog < lease < lease + grace.
_QUICK_SETTINGS = {
    "DREAMERY_CALL_TIMEOUT_SECONDS": "3",
    "DREAMERY_WATCHDOG_SECONDS": "4.5",
    "DREAMERY_LEASE_SECONDS": "6",
    "DREAMERY_UNCLEAR_GRACE_SECONDS": "3",
    "DREAMERY_POLL_MIN_SECONDS": "0.5",
    "DREAMERY_POLL_MAX_SECONDS": "2",
}


@dataclass
class Row:
    """What came of a scenario. `recovered` = requests with their result; times in seconds."""

    load: str
    scenario: str
    disturbances: int
    requests: int
    recovered: int
    lost: int  # accepted, but not ended well
    paid_twice: int
    longest_pause: float  # in which no job got on while some were open
    longest_silence: float  # in which the API answered nothing
    last_result: float  # after the last disturbance
    repeats: int  # of requests by clients, because there was no answer or a 503
    failures: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON data."""
        return asdict(self)


class _Probe:
    """Asks the API all the time; remembers the longest time without an answer."""

    def __init__(self, url: str) -> None:
        self.longest = 0.0
        self._url = url
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        last = time.monotonic()
        with httpx2.Client(trust_env=False, timeout=httpx2.Timeout(15, connect=2)) as client:
            while not self._over.wait(_PROBE_SECONDS):
                with contextlib.suppress(httpx2.HTTPError):
                    # It reads the database: a 503 is no answer.
                    answer = client.get(
                        f"{self._url}/v1/jobs?limit=1", headers={"Authorization": "Bearer probe:sandbox"}
                    )
                    if answer.status_code == 200:
                        self.longest = max(self.longest, time.monotonic() - last)
                        last = time.monotonic()
        self.longest = max(self.longest, time.monotonic() - last)

    def close(self) -> None:
        self._over.set()
        self._thread.join()


def measure(scenario: Scenario, load: Load, *, quick: bool, logs: str = "") -> Row:
    """Run the scenario under the load on a new platform."""
    load = load.quick() if quick else load
    with _platform(scenario, load, quick=quick, logs=logs) as platform:
        orders = load.orders(1000)
        probe = _Probe(platform.url)
        started = time.time()
        outcomes, clients, ended, times = asyncio.run(_run(platform, scenario, load, orders))
        snapshot = _wait_for_end(platform, orders)
        probe.close()
        return _row(scenario, load, outcomes, clients, snapshot, _Times(started, ended, times, probe.longest))


@dataclass
class _Times:
    started: float
    calm: float  # when the last disturbance had ended
    disturbances: int
    silence: float


@contextlib.contextmanager
def _platform(scenario: Scenario, load: Load, *, quick: bool, logs: str) -> Iterator[Platform]:
    settings = _SETTINGS | (_QUICK_SETTINGS if quick else {})
    with tempfile.TemporaryDirectory(prefix="dreamery-chaos-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        options = PlatformOptions(
            data_dir=folder / "data", flower="never", sandbox="at_start", throwaway=True, workers=_WORKERS,
            separate_roles=True, sandbox_seconds=1.0, extra_env=settings,
        )  # fmt: skip
        with Platform(options) as platform:
            yield platform
        if logs:
            target = Path(logs) / f"{load.name}-{scenario.name}".replace(" ", "-").replace(",", "")
            shutil.copytree(folder / "data" / "logs", target, dirs_exist_ok=True)


async def _run(
    platform: Platform, scenario: Scenario, load: Load, orders: list[ClientRequest]
) -> tuple[list[Outcome], Clients, float, int]:
    async with Clients(platform.url, video=load.video) as clients:
        tasks = [asyncio.create_task(clients.run(order)) for order in orders]
        disturbance = Disturbance(scenario, platform)
        disturbance.start()
        await asyncio.sleep(load.seconds)
        await asyncio.to_thread(disturbance.stop)
        calm = time.time()
        _, late = await asyncio.wait(tasks, timeout=_RECOVERY_SECONDS)
        for task in late:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        clients.failures += [
            f"{order.prompt}: no end in time" for task, order in zip(tasks, orders, strict=True) if task in late
        ]
        clients.failures += [repr(error) for error in found if isinstance(error, Exception)]
        if disturbance.failure is not None:
            clients.failures.append(f"the disturbance failed: {disturbance.failure!r}")
    return [outcome for outcome in found if isinstance(outcome, Outcome)], clients, calm, disturbance.times


def _wait_for_end(platform: Platform, orders: list[ClientRequest]) -> PlatformSnapshot:
    deadline = time.monotonic() + 30
    numbers = [order.number for order in orders]
    while True:
        with contextlib.suppress(Exception):
            snapshot = PlatformSnapshot(platform, numbers)
            if not snapshot.open_jobs or time.monotonic() > deadline:
                return snapshot
        if time.monotonic() > deadline + 60:
            raise TimeoutError("the database cannot be read after the run")
        time.sleep(0.5)


def _row(
    scenario: Scenario, load: Load, outcomes: list[Outcome], clients: Clients, snapshot: PlatformSnapshot, times: _Times
) -> Row:
    accepted = {job_id for outcome in outcomes for job_id in outcome.job_ids}
    states = {f"job_{job['id'].hex}": job["state"] for job in snapshot.jobs}
    lost = {job_id for job_id in accepted | states.keys() if states.get(job_id) != "succeeded"}
    finished = [job["finished_at"].timestamp() for job in snapshot.jobs if job["finished_at"]]
    return Row(
        load=load.name,
        scenario=scenario.name,
        disturbances=times.disturbances,
        requests=load.requests,
        recovered=sum(outcome.status == "completed" and bool(outcome.urls) for outcome in outcomes),
        lost=len(lost),
        paid_twice=_paid_twice(snapshot),
        longest_pause=round(_longest_pause(snapshot), 1),
        longest_silence=round(times.silence, 1),
        last_result=round(max(max(finished, default=times.calm) - times.calm, 0.0), 1),
        repeats=clients.repeats,
        failures=clients.failures[:5]
        + [snapshot.describe_history(job["id"]) for job in snapshot.jobs if job["state"] != "succeeded"][:3],
    )


def _paid_twice(snapshot: PlatformSnapshot) -> int:
    """Count jobs that upstream accepted more than once, charges of one key more than once, and charges without a row."""
    orders = Counter(line["prompt"] for line in snapshot.accepted)
    charges = Counter(charge["submit_id"] for charge in snapshot.ledger["charges"])
    keys = {str(job["submit_key"]) for job in snapshot.jobs if job["submit_key"]}
    unknown = sum(line["submit_id"] not in keys for line in snapshot.accepted)
    return sum(n - 1 for n in orders.values()) + sum(n - 1 for n in charges.values()) + unknown


def _longest_pause(snapshot: PlatformSnapshot) -> float:
    """Return the longest time between two changes of any job while at least one was open."""
    longest, open_jobs, last = 0.0, 0, None
    for event in sorted(snapshot.events, key=lambda event: event["at"]):
        at = event["at"].timestamp()
        if last is not None and open_jobs:
            longest = max(longest, at - last)
        open_jobs += (event["from_state"] is None) - (event["to_state"] in FINAL)
        last = at
    return longest


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    head = (
        "load",
        "what is broken",
        "times",
        "recovered",
        "lost",
        "paid twice",
        "longest pause s",
        "API silent s",
        "last result after s",
        "client repeats",
    )
    lines = [
        (
            row.load,
            row.scenario,
            str(row.disturbances or "-"),
            f"{row.recovered} of {row.requests} ({100 * row.recovered / row.requests:.0f} %)",
            str(row.lost),
            str(row.paid_twice),
            f"{row.longest_pause:.1f}",
            f"{row.longest_silence:.1f}",
            f"{row.last_result:.1f}",
            str(row.repeats),
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
    text = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *lines]]
    ruler = "|".join("-" * (width + 2) for width in widths)
    for row in rows:
        for failure in row.failures:
            print(f"{row.load}, {row.scenario}: {failure}", file=sys.stderr)
    return "\n".join([f"| {text[0]} |", f"|{ruler}|", *(f"| {line} |" for line in text[1:])])
