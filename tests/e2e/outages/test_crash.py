"""Crashes of real processes: no accepted job is lost or charged twice, and nothing hangs (I7, I12; also I1, I4, I5)."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from itertools import count

import httpx2
import pytest

from tests.support.crash.chaos import Chaos, empty_redis, set_faults
from tests.support.crash.load_clients import ClientRequest, LoadClients, Outcome, random_requests
from tests.support.crash.platform_snapshot import PlatformSnapshot, tracebacks
from tests.support.platform import eventually, find_processes, start_platform
from worker.local.supervisor import Platform

SLOTS = 3
# Short times in the required order: call 3 s < watchdog 4.5 s < lease 6 s < lease + grace 9 s.
QUICK = {
    "DREAMERY_REQUESTS_PER_MINUTE": "0",  # a few callers send many requests
    "DREAMERY_CALL_TIMEOUT_SECONDS": "3",
    "DREAMERY_WATCHDOG_SECONDS": "4.5",
    "DREAMERY_LEASE_SECONDS": "6",
    "DREAMERY_UNCLEAR_GRACE_SECONDS": "3",
    "DREAMERY_POLL_MIN_SECONDS": "0.5",
    "DREAMERY_POLL_MAX_SECONDS": "2",
    "DREAMERY_ACCOUNT_MAX_IMAGES": str(SLOTS),
    "DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "6000",
    "DREAMERY_MAX_ATTEMPTS": "30",
}
_numbers = count(1_001)


# ---- one platform for all tests; it recovers between them, and its logs are checked at the end


@pytest.fixture(scope="module")
def shared_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, list[str]]]:
    notices: list[str] = []
    folder = tmp_path_factory.mktemp("shared_platform")
    with start_platform(folder, workers=2, extra_env=QUICK, on_notice=notices.append) as platform:
        yield platform, notices
        logs = platform.logs_dir
    assert not (found := tracebacks(logs)), f"{len(found)} tracebacks\n" + "\n".join(found[:20])
    assert not find_processes(folder)


@pytest.fixture
def platform(shared_platform: tuple[Platform, list[str]]) -> Iterator[Platform]:
    """The shared platform in a healthy state: no injected faults, every process running, workers ready."""
    platform, _ = shared_platform
    set_faults(platform, {})
    eventually(lambda: _is_healthy(platform), within=60, what="the platform is healthy again")
    yield platform
    set_faults(platform, {})
    for child in platform.children.values():
        child.send(signal.SIGCONT)


@pytest.fixture
def notices(shared_platform: tuple[Platform, list[str]]) -> list[str]:
    """The supervisor's notices during this test."""
    shared_platform[1].clear()
    return shared_platform[1]


def _is_healthy(platform: Platform) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        ready = httpx2.get(f"{platform.url}/readyz", trust_env=False).status_code == 200
        return ready and all(child.exit_code is None for child in platform.children.values())
    return False


# ---- many random crashes


@pytest.mark.timeout(240)
def test_i12_random_kills_lose_no_job_and_charge_each_once(platform: Platform, notices: list[str]) -> None:
    seed = int(os.environ.get("TEST_SEED", "1"))
    tokens = [f"storm{n}:sandbox" for n in range(1, 7)]
    orders = random_requests(random.Random(seed), count=110, tokens=tokens, within=14)
    with Chaos(platform, seed=seed, pause=1.4) as chaos:
        outcomes, clients = asyncio.run(_run_clients(platform.url, orders, within=130))
    snapshot = _snapshot_at_the_end(platform, orders)
    _print_figures(snapshot, outcomes, clients, chaos, notices)
    assert not snapshot.open_jobs, "\n".join(snapshot.describe_history(job["id"]) for job in snapshot.open_jobs)
    assert chaos.failure is None, chaos.failure
    assert not clients.failures, "\n".join(clients.failures)
    assert len(snapshot.jobs) >= 95
    snapshot.assert_charged_once()
    snapshot.assert_concurrency_within(slots=SLOTS)
    snapshot.assert_history_valid()
    snapshot.assert_files_stored({order.number: order.expected_files for order in orders})
    _assert_expected_outcomes(snapshot, outcomes)


async def _run_clients(url: str, orders: list[ClientRequest], *, within: float) -> tuple[list[Outcome], LoadClients]:
    async with LoadClients(url) as clients:
        order_of_task = {asyncio.create_task(clients.run(order)): order for order in orders}
        _, late = await asyncio.wait(order_of_task, timeout=within)
        for task in late:
            task.cancel()
        outcomes = await asyncio.gather(*order_of_task, return_exceptions=True)
        clients.failures += [f"not finished in time: {order_of_task[task].prompt}" for task in late]
        clients.failures += [
            f"{order_of_task[task].prompt}: {task.exception()!r}"
            for task in order_of_task
            if task not in late and task.exception()
        ]
    return [outcome for outcome in outcomes if isinstance(outcome, Outcome)], clients


def _snapshot(platform: Platform, orders: list[ClientRequest]) -> PlatformSnapshot:
    return PlatformSnapshot(platform, [order.number for order in orders])


def _snapshot_at_the_end(platform: Platform, orders: list[ClientRequest]) -> PlatformSnapshot:
    """The snapshot when all jobs have ended, at the latest after 30 s; it shows jobs that are still open."""
    deadline = time.monotonic() + 30
    while (snapshot := _snapshot(platform, orders)).open_jobs and time.monotonic() < deadline:
        time.sleep(0.5)
    return snapshot


def _assert_expected_outcomes(snapshot: PlatformSnapshot, outcomes: list[Outcome]) -> None:
    job_of = {snapshot.number_of(job): job for job in snapshot.jobs}
    api_status = {"succeeded": "completed"}
    for outcome in outcomes:
        order = outcome.order
        job = job_of.get(order.number)
        if order.mode == "once" and outcome.status == "lost":
            if job is not None:
                assert api_status.get(job["state"], job["state"]) in order.expected_statuses, snapshot.describe_history(
                    job["id"]
                )
            continue
        assert job is not None, f"accepted, but there is no row: {outcome}"
        context = f"{outcome}\n{snapshot.describe_history(job['id'])}"
        assert outcome.job_ids == {f"job_{job['id'].hex}"}, context
        assert api_status.get(job["state"], job["state"]) == outcome.status, context
        assert outcome.status in order.expected_statuses, context
        if outcome.promised_cancel:
            assert outcome.status == "cancelled", context
        if outcome.status == "failed":
            assert outcome.code == job["error_code"] == order.expected_code, context
        if outcome.status == "completed":
            assert len(outcome.urls) == order.expected_files, context


def _print_figures(
    snapshot: PlatformSnapshot, outcomes: list[Outcome], clients: LoadClients, chaos: Chaos, notices: list[str]
) -> None:
    ends = Counter(job["state"] for job in snapshot.jobs)
    attempts = Counter(job["attempt"] for job in snapshot.jobs)
    adopted = sum(
        1
        for e in snapshot.events
        if e["to_state"] == "running" and e["actor"] == "poll" and e["from_state"] == "submitting"
    )
    requeued = sum(1 for e in snapshot.events if e["from_state"] == "submitting" and e["to_state"] == "queued")
    deaths = Counter(notice.split(" ended ")[0] + " " + notice.split("(")[1].split(")")[0] for notice in notices)
    closed = [job for job in snapshot.jobs if job["finished_at"]]
    first, last = min(j["created_at"] for j in snapshot.jobs), max(j["finished_at"] for j in closed)
    ended = Counter(int((job["finished_at"] - first).total_seconds()) // 10 * 10 for job in closed)
    print(f"ended in each 10 s: {[ended[second] for second in range(0, max(ended) + 1, 10)]}")
    totals = snapshot.ledger["totals"]
    print(
        f"jobs {len(snapshot.jobs)} {dict(ends)} in {(last - first).total_seconds():.1f} s; attempts {dict(attempts)}"
    )
    print(f"found by key {adopted}, requeued {requeued}; client repeats {clients.repeats}")
    print(f"ledger {totals}; max in flight {[a['max_in_flight'] for a in snapshot.ledger['accounts'].values()]}")
    print(f"crashes {dict(Counter(chaos.actions))}; deaths {dict(deaths)}")


# ---- one crash at a time


def _orders(name: str, number: int, *, script: str = "", mode: str = "async") -> list[ClientRequest]:
    """Identical orders of one caller with its own session."""
    return [
        ClientRequest(number=next(_numbers), token=f"{name}:sandbox", script=script, seed=n % 2, mode=mode)  # type: ignore[arg-type]
        for n in range(number)
    ]


def _run(
    platform: Platform,
    orders: list[ClientRequest],
    meanwhile: Callable[[], object] | None = None,
    *,
    within: float = 60,
) -> tuple[list[Outcome], PlatformSnapshot]:
    """Send the orders, run `meanwhile` in a thread, and check the snapshot when all have ended."""

    async def send_and_crash() -> tuple[list[Outcome], LoadClients]:
        work: list[Awaitable[object]] = [asyncio.to_thread(meanwhile)] if meanwhile else []
        results = await asyncio.gather(_run_clients(platform.url, orders, within=within), *work)
        return results[0]  # type: ignore[return-value]

    outcomes, clients = asyncio.run(send_and_crash())
    snapshot = _snapshot(platform, orders)
    assert not clients.failures, "\n".join(
        clients.failures + [snapshot.describe_history(job["id"]) for job in snapshot.open_jobs]
    )
    assert len(outcomes) == len(orders)
    snapshot.assert_charged_once()
    snapshot.assert_concurrency_within(slots=SLOTS)
    snapshot.assert_history_valid()
    snapshot.assert_files_stored({order.number: order.expected_files for order in orders})
    _assert_expected_outcomes(snapshot, outcomes)
    return outcomes, snapshot


def _states(platform: Platform, orders: list[ClientRequest]) -> Counter[str]:
    return Counter(job["state"] for job in _snapshot(platform, orders).jobs)


def _restarted(platform: Platform, name: str, pid: int) -> bool:
    child = platform.children[name]
    return child.pid != pid and child.exit_code is None


def _kill(platform: Platform, *names: str) -> None:
    """Kill processes and wait until each is replaced."""
    pids = {name: platform.children[name].pid for name in names}
    for name in names:
        platform.children[name].kill()
    eventually(lambda: all(_restarted(platform, name, pids[name]) for name in names), what=f"{names} started again")


def test_i7_all_workers_killed_while_jobs_run(platform: Platform) -> None:
    orders = _orders("killed-workers", 9, script="[[seconds:2]]")

    def crash() -> None:
        eventually(lambda: _states(platform, orders)["running"] == SLOTS, what="jobs running")
        _kill(platform, "worker-1", "worker-2")

    _run(platform, orders, crash)


def test_i12_api_killed_while_callers_wait(platform: Platform) -> None:
    """The jobs continue, and a caller that retries with the same Idempotency-Key gets the images."""
    orders = _orders("killed-api", 6, script="[[seconds:2]]", mode="wait")

    def crash() -> None:
        eventually(lambda: sum(_states(platform, orders).values()) == 6, what="all accepted")
        _kill(platform, "api")

    outcomes, snapshot = _run(platform, orders, crash)
    assert all(outcome.replayed for outcome in outcomes)
    assert len(snapshot.accepted) == len(orders)


def test_i12_redis_emptied_with_queued_jobs(platform: Platform) -> None:
    """The workers are stopped while 20 jobs are accepted, so all messages are in Redis when it is emptied."""
    orders = _orders("emptied", 20, script="[[seconds:0.5]]")

    def crash() -> None:
        for worker in ("worker-1", "worker-2"):
            platform.children[worker].send(signal.SIGSTOP)
        eventually(lambda: _states(platform, orders)["queued"] >= 17, what="accepted and queued")
        empty_redis(platform)
        _kill(platform, "worker-1", "worker-2")

    _run(platform, orders, crash)


def test_i12_redis_killed_while_callers_wait(platform: Platform) -> None:
    orders = _orders("killed-redis", 8, script="[[seconds:1.5]]", mode="wait")

    def crash() -> None:
        eventually(lambda: sum(_states(platform, orders).values()) == 8, what="all accepted")
        _kill(platform, "redis")

    outcomes, _ = _run(platform, orders, crash)
    assert not any(outcome.replayed for outcome in outcomes)


def test_i7_scheduler_suspended_and_killed(platform: Platform) -> None:
    """Without the worker that is also the scheduler no lost message is repeated; after its restart it catches up."""
    orders = _orders("no-scheduler", 8, script="[[seconds:1]]")

    def crash() -> None:
        platform.children["worker-1"].send(signal.SIGSTOP)
        eventually(lambda: sum(_states(platform, orders).values()) == 8, what="all accepted")
        time.sleep(3)
        _kill(platform, "worker-1")

    _run(platform, orders, crash)


@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGKILL])
def test_i12_postgres_restarted_while_callers_wait(platform: Platform, stop_signal: signal.Signals) -> None:
    """Waiting callers get their images without a retry."""
    orders = _orders(f"postgres-{stop_signal.name}", 8, script="[[seconds:1.5]]", mode="wait")

    def crash() -> None:
        eventually(lambda: sum(_states(platform, orders).values()) == 8, what="all accepted")
        pid = platform.children["postgres"].pid
        platform.children["postgres"].send(stop_signal)
        eventually(lambda: _restarted(platform, "postgres", pid), what="Postgres started again")

    outcomes, _ = _run(platform, orders, crash)
    assert not any(outcome.replayed for outcome in outcomes)


def test_i12_requests_during_postgres_restart(platform: Platform) -> None:
    """New requests wait or get a retryable error: no internal error, and no order becomes two jobs."""
    orders = [
        ClientRequest(number=next(_numbers), token="postgres-away:sandbox", starts_at=n / 10, mode="async")
        for n in range(20)
    ]

    def crash() -> None:
        eventually(lambda: sum(_states(platform, orders).values()) >= 3, what="some accepted")
        platform.children["postgres"].send(signal.SIGINT)

    _run(platform, orders, crash)


def test_i7_files_slower_than_the_lease_end_no_worker(platform: Platform, notices: list[str]) -> None:
    """Upstream's file server is slower than watchdog and lease: copies wait on the event loop, and other jobs go on.

    When the lease has run out, another task copies the same results: the same bytes under the same keys.
    """
    orders = _orders("slow-files", 2, script="[[seconds:0.5]]")
    before = len(notices)
    set_faults(platform, {"latency": 9, "paths": ["/_media"]})

    def wait_and_recover() -> None:
        eventually(lambda: _states(platform, orders)["saving"] == 2, what="both are being copied")
        time.sleep(8)
        set_faults(platform, {})

    _run(platform, orders, wait_and_recover)
    assert [notice for notice in notices[before:] if "exit code" in notice] == []


def test_i4_submit_slower_than_call_timeout_is_not_repeated(platform: Platform) -> None:
    """The call ends at its own deadline; the poll finds the job by its submit key, and it is not submitted again."""
    orders = _orders("slow-submit", 2, script="[[seconds:1]][[latency:10]]")
    _, snapshot = _run(platform, orders)
    assert [job["attempt"] for job in snapshot.jobs] == [1, 1]


def test_i4_workers_suspended_beyond_their_lease_submit_once(platform: Platform) -> None:
    """All workers are suspended during their calls until their leases expire, and then resume.

    Whether a resumed process goes on or its watchdog ends it depends on what it notices first. Their claimed jobs must
    not be submitted twice, by the resumed workers or by those that took over.
    """
    orders = _orders("sleepers", 8, script="[[seconds:1]][[latency:2]]")

    def crash() -> None:
        eventually(lambda: _states(platform, orders)["submitting"] >= 2, what="submits under way")
        for worker in ("worker-1", "worker-2"):
            platform.children[worker].send(signal.SIGSTOP)
        time.sleep(10)
        for worker in ("worker-1", "worker-2"):
            platform.children[worker].send(signal.SIGCONT)

    _run(platform, orders, crash)
