"""Crashes of real processes with jobs of both upstreams: no video is charged twice, no image is made twice, what cannot
be known is reported, and our books are those of the upstream.
"""

import asyncio
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.e2e.outages.test_crash import QUICK, SLOTS
from tests.support.crash.chaos import Chaos, set_faults
from tests.support.crash.load_clients import ClientRequest, LoadClients, Outcome, random_requests
from tests.support.crash.platform_snapshot import PlatformSnapshot, _number, tracebacks
from tests.support.platform import find_processes, start_platform
from worker.local.supervisor import Platform

FIRST = 10_001  # the number of the first Ark request
ENV = {**QUICK, "DREAMERY_ACCOUNT_MAX_VIDEOS": "4"}


@pytest.fixture
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("ark_platform")
    with start_platform(folder, workers=2, extra_env=ENV) as platform:
        yield platform
        set_faults(platform, {})
        logs = platform.logs_dir
    assert not (found := tracebacks(logs)), f"{len(found)} tracebacks\n" + "\n".join(found[:20])
    assert not find_processes(folder)


def add_accounts(platform: Platform) -> None:
    """Two keys of one customer, two customers alone, and one whose lists hide our keys."""
    for keys, group in (
        ("ark-studio.1,ark-studio.2", "studio"),
        ("ark-alone-1,ark-alone-2", None),
        ("ark-noecho-3", None),
    ):
        body = {"tokens": keys, "provider": "ark", "region": "sandbox", "limit_group": group, "check": False}
        answer = httpx2.post(
            f"{platform.url}/admin/v1/accounts",
            json=body,
            headers={"Authorization": f"Bearer {platform.admin_key}"},
            trust_env=False,
            timeout=30,
        )
        assert answer.status_code in {200, 201}, answer.text


def ark_requests(rng: random.Random, platform: Platform, *, count: int, within: float) -> list[ClientRequest]:
    """Return videos and images on Ark with answers that are lost before and after the work was done."""
    orders = []
    for number in range(FIRST, FIRST + count):
        is_video = rng.random() < 0.6
        fault = rng.choices(("", "[[reset:after]]", "[[reset]]", "[[empty:after]]"), weights=(70, 14, 8, 8))[0]
        mode = rng.choices(("async", "cancel"), weights=(85, 15))[0]
        orders.append(
            ClientRequest(
                number=number,
                token=platform.admin_key,
                script=f"[[seconds:{rng.uniform(0.5, 3):.2f}]]{fault}",
                mode=mode,
                starts_at=rng.uniform(0, within),
                cancel_after=rng.uniform(0, 2),
                accounts="provider=ark",
                kind="video" if is_video else "image",
                model="seedance-2.0-mini" if is_video else "seedream-5.0-flash",
                expected_statuses=frozenset({"completed", "failed"} | ({"cancelled"} if mode == "cancel" else set())),
            )
        )
    return orders


def control(platform: Platform, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    call = {"headers": platform.sandbox_control_headers, "trust_env": False, "timeout": 30}
    url = f"{platform.sandbox_url}{path}"
    answer = httpx2.get(url, **call) if body is None else httpx2.post(url, json=body, **call)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def run_clients(url: str, orders: list[ClientRequest], *, within: float) -> tuple[list[Outcome], list[str]]:
    async with LoadClients(url) as clients:
        tasks = {asyncio.create_task(clients.run(order)): order for order in orders}
        done, late = await asyncio.wait(tasks, timeout=within)
        for task in late:
            task.cancel()
        failures = [f"not finished in time: {tasks[task].prompt}" for task in late]
        failures += [f"{tasks[task].prompt}: {task.exception()!r}" for task in done if task.exception()]
        return [task.result() for task in done if not task.exception()], clients.failures + failures


@pytest.mark.timeout(300)
def test_random_kills_with_jobs_of_both_upstreams(platform: Platform) -> None:
    seed = int(os.environ.get("TEST_SEED", "1"))
    rng = random.Random(seed)
    add_accounts(platform)
    tokens = [f"storm{n}:sandbox" for n in range(1, 5)]
    ark = ark_requests(rng, platform, count=50, within=14)
    dreamina = random_requests(rng, count=40, tokens=tokens, within=14)
    control(
        platform, "/_ark/lost", {"creates": 0.06, "images": 0.03, "lists": 0.1, "gets": 0.1, "late": 1, "seed": seed}
    )
    with Chaos(platform, seed=seed, pause=2.0) as chaos:
        _, failures = asyncio.run(run_clients(platform.url, [*ark, *dreamina], within=200))
    assert chaos.failure is None, chaos.failure
    snapshot = at_the_end(platform, ark)
    books = Books(snapshot, control(platform, "/_ark/ledger"))
    books.print_figures()
    assert not snapshot.open_jobs, "\n".join(snapshot.describe_history(job["id"]) for job in snapshot.open_jobs)
    assert not failures, "\n".join(failures)
    snapshot.assert_history_valid()
    assert len(snapshot.jobs) == len(ark)
    books.assert_nothing_was_made_twice()
    books.assert_unclear_jobs_are_reported()
    books.assert_sums_are_equal()
    other = PlatformSnapshot(platform, [order.number for order in dreamina])
    assert not other.open_jobs
    other.assert_charged_once()
    other.assert_concurrency_within(slots=SLOTS)


def at_the_end(platform: Platform, orders: list[ClientRequest]) -> PlatformSnapshot:
    deadline = time.monotonic() + 60
    while (snapshot := PlatformSnapshot(platform, [order.number for order in orders])).open_jobs:
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    return snapshot


class Books:
    """Our jobs beside what the upstream made of them, by the number of the request."""

    def __init__(self, snapshot: PlatformSnapshot, ledger: dict[str, Any]) -> None:
        self.snapshot = snapshot
        self.jobs = {snapshot.number_of(job): job for job in snapshot.jobs}
        self.made: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for one in (*ledger["images"], *ledger["videos"]):
            self.made[_number(one["prompt"])].append(one)
        self.violations = ledger["violations"]
        self.totals = ledger["totals"]

    def describe(self, number: int) -> str:
        job = self.jobs[number]
        return f"{self.made[number]}\n{self.snapshot.describe_history(job['id'])}"

    def print_figures(self) -> None:
        ends = Counter((job["kind"], job["state"], job["error_code"]) for job in self.jobs.values())
        print(f"ark: {dict(ends)}; {dict(Counter(job['charge_doubt'] for job in self.jobs.values()))}")
        print(f"ark: attempts {dict(Counter(job['attempt'] for job in self.jobs.values()))}; upstream {self.totals}")

    def assert_nothing_was_made_twice(self) -> None:
        assert not self.violations, self.violations
        twice = [number for number, made in self.made.items() if len(made) > 1]
        assert not twice, "\n".join(self.describe(number) for number in twice)
        for number, job in self.jobs.items():
            if job["state"] == "succeeded":
                assert len(self.made[number]) == 1, self.describe(number)

    def assert_unclear_jobs_are_reported(self) -> None:
        """What upstream charged and we did not book is marked, and nothing else ends that way."""
        for number, job in self.jobs.items():
            cost = sum(one["cost"] for one in self.made[number])
            booked = job["charged"] or 0 if job["settled_at"] else 0
            if cost and not booked:
                assert job["charge_doubt"] == "submit_unclear", self.describe(number)
            assert (job["error_code"] == "submit_unclear") == (job["charge_doubt"] == "submit_unclear")
            # A submit that certainly did not arrive twice in a row is not tried a third time.
            assert job["error_code"] in {None, "submit_unclear", "upstream_unreachable"}, self.describe(number)
            if job["error_code"] == "upstream_unreachable":
                assert (cost, job["charged"]) == (0, 0), self.describe(number)

    def assert_sums_are_equal(self) -> None:
        """Each settled job costs what the upstream charged for it."""
        settled = {number: job for number, job in self.jobs.items() if job["settled_at"]}
        for number, job in settled.items():
            assert job["charged"] == sum(round(one["cost"]) for one in self.made[number]), self.describe(number)
        for number, job in self.jobs.items():
            assert job["settled_at"] or job["charge_doubt"], self.describe(number)
        assert sum(job["charged"] for job in settled.values()) > 0
