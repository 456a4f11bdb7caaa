"""Crashes of real processes: nothing accepted is lost, nothing is paid twice, nothing hangs (I7, I12, and I1, I4, I5 on the way)."""

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
# The order of times is kept, only quicker: call 3 s < watchdog 4.5 s < lease 6 s < lease + grace 9 s.
QUICK = {
    "DREAMERY_REQUESTS_PER_MINUTE": "0",  # the clients are few callers who ask much
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


# ---- one platform, which heals between the tests; what it logged is read at the end


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
    """The shared platform, well: no faults, every process up, workers listening."""
    platform, _ = shared_platform
    set_faults(platform, {})
    eventually(lambda: _is_well(platform), within=60, what="the platform is well again")
    yield platform
    set_faults(platform, {})
    for child in platform.children.values():
        child.send(signal.SIGCONT)


@pytest.fixture
def notices(shared_platform: tuple[Platform, list[str]]) -> list[str]:
    """What the supervisor tells of deaths during this test."""
    shared_platform[1].clear()
    return shared_platform[1]


def _is_well(platform: Platform) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        ready = httpx2.get(f"{platform.url}/readyz", trust_env=False).status_code == 200
        return ready and all(child.exit_code is None for child in platform.children.values())
    return False


# ---- the storm


@pytest.mark.timeout(240)
def test_i12_a_storm_of_kills_loses_no_job_and_pays_each_once(platform: Platform, notices: list[str]) -> None:
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
    _assert_ended_as_wanted(snapshot, outcomes)


async def _run_clients(url: str, orders: list[ClientRequest], *, within: float) -> tuple[list[Outcome], LoadClients]:
    async with LoadClients(url) as clients:
        places = {asyncio.create_task(clients.run(order)): order for order in orders}
        _, late = await asyncio.wait(places, timeout=within)
        for task in late:
            task.cancel()
        outcomes = await asyncio.gather(*places, return_exceptions=True)
        clients.failures += [f"no end seen in time: {places[task].prompt}" for task in late]
        clients.failures += [
            f"{places[task].prompt}: {task.exception()!r}" for task in places if task not in late and task.exception()
        ]
    return [outcome for outcome in outcomes if isinstance(outcome, Outcome)], clients


def _snapshot(platform: Platform, orders: list[ClientRequest]) -> PlatformSnapshot:
    return PlatformSnapshot(platform, [order.number for order in orders])


def _snapshot_at_the_end(platform: Platform, orders: list[ClientRequest]) -> PlatformSnapshot:
    """Callers have left; what they left behind ends too, or is shown by the snapshot."""
    deadline = time.monotonic() + 30
    while (snapshot := _snapshot(platform, orders)).open_jobs and time.monotonic() < deadline:
        time.sleep(0.5)
    return snapshot


def _assert_ended_as_wanted(snapshot: PlatformSnapshot, outcomes: list[Outcome]) -> None:
    job_of = {snapshot.number_of(job): job for job in snapshot.jobs}
    words = {"succeeded": "completed"}
    for outcome in outcomes:
        order = outcome.order
        job = job_of.get(order.number)
        if order.mode == "once" and outcome.status == "lost":
            if job is not None:
                assert words.get(job["state"], job["state"]) in order.expected_statuses, snapshot.describe_history(job["id"])
            continue
        assert job is not None, f"accepted, but no row: {outcome}"
        story = f"{outcome}\n{snapshot.describe_history(job['id'])}"
        assert outcome.job_ids == {f"job_{job['id'].hex}"}, story
        assert words.get(job["state"], job["state"]) == outcome.status, story
        assert outcome.status in order.expected_statuses, story
        if outcome.promised_cancel:
            assert outcome.status == "cancelled", story
        if outcome.status == "failed":
            assert outcome.code == job["error_code"] == order.expected_code, story
        if outcome.status == "completed":
            assert len(outcome.urls) == order.expected_files, story


def _print_figures(snapshot: PlatformSnapshot, outcomes: list[Outcome], clients: LoadClients, chaos: Chaos, notices: list[str]) -> None:
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
    print(f"jobs {len(snapshot.jobs)} {dict(ends)} in {(last - first).total_seconds():.1f} s; attempts {dict(attempts)}")
    print(f"found by key {adopted}, requeued {requeued}; client repeats {clients.repeats}")
    print(f"ledger {totals}; max in flight {[a['max_in_flight'] for a in snapshot.ledger['accounts'].values()]}")
    print(f"blows {dict(Counter(chaos.actions))}; deaths {dict(deaths)}")


# ---- one crash at a time


def _orders(name: str, number: int, *, script: str = "", mode: str = "async") -> list[ClientRequest]:
    """Like orders of one caller, whose session is its own."""
    return [
        ClientRequest(number=next(_numbers), token=f"{name}:sandbox", script=script, seed=n % 2, mode=mode)  # type: ignore[arg-type]
        for n in range(number)
    ]


def _run(
    platform: Platform, orders: list[ClientRequest], meanwhile: Callable[[], object] | None = None, *, within: float = 60
) -> tuple[list[Outcome], PlatformSnapshot]:
    """Place the orders, do something meanwhile in a thread, and check the snapshot when all have ended."""

    async def scene() -> tuple[list[Outcome], LoadClients]:
        work: list[Awaitable[object]] = [asyncio.to_thread(meanwhile)] if meanwhile else []
        results = await asyncio.gather(_run_clients(platform.url, orders, within=within), *work)
        return results[0]  # type: ignore[return-value]

    outcomes, clients = asyncio.run(scene())
    snapshot = _snapshot(platform, orders)
    assert not clients.failures, "\n".join(clients.failures + [snapshot.describe_history(job["id"]) for job in snapshot.open_jobs])
    assert len(outcomes) == len(orders)
    snapshot.assert_charged_once()
    snapshot.assert_concurrency_within(slots=SLOTS)
    snapshot.assert_history_valid()
    snapshot.assert_files_stored({order.number: order.expected_files for order in orders})
    _assert_ended_as_wanted(snapshot, outcomes)
    return outcomes, snapshot


def _states(platform: Platform, orders: list[ClientRequest]) -> Counter[str]:
    return Counter(job["state"] for job in _snapshot(platform, orders).jobs)


def _restarted(platform: Platform, name: str, pid: int) -> bool:
    child = platform.children[name]
    return child.pid != pid and child.exit_code is None


def _kill(platform: Platform, *names: str) -> None:
    """Kill and wait until each has a new process."""
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


def test_i12_the_api_killed_while_callers_wait(platform: Platform) -> None:
    """The jobs go on without it, and a caller who repeats with the same Idempotency-Key gets the pictures."""
    orders = _orders("killed-api", 6, script="[[seconds:2]]", mode="wait")

    def crash() -> None:
        eventually(lambda: sum(_states(platform, orders).values()) == 6, what="all accepted")
        _kill(platform, "api")

    outcomes, snapshot = _run(platform, orders, crash)
    assert all(outcome.replayed for outcome in outcomes)
    assert len(snapshot.accepted) == len(orders)


def test_i12_redis_emptied_with_queued_jobs(platform: Platform) -> None:
    """The workers are dead while 20 jobs come in, so all their messages are in Redis when it forgets everything."""
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


def test_i7_the_scheduler_away_for_a_while(platform: Platform) -> None:
    """Nothing moves by itself without it, nothing is lost either; it catches up when it is back."""
    orders = _orders("no-scheduler", 8, script="[[seconds:1]]")

    def crash() -> None:
        platform.children["scheduler"].send(signal.SIGSTOP)
        eventually(lambda: sum(_states(platform, orders).values()) == 8, what="all accepted")
        time.sleep(3)
        _kill(platform, "scheduler")

    _run(platform, orders, crash)


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_i12_postgres_restarted_while_callers_wait(platform: Platform, blow: signal.Signals) -> None:
    """Nobody has to repeat anything: the callers who wait get their pictures."""
    orders = _orders(f"postgres-{blow.name}", 8, script="[[seconds:1.5]]", mode="wait")

    def crash() -> None:
        eventually(lambda: sum(_states(platform, orders).values()) == 8, what="all accepted")
        pid = platform.children["postgres"].pid
        platform.children["postgres"].send(blow)
        eventually(lambda: _restarted(platform, "postgres", pid), what="Postgres started again")

    outcomes, _ = _run(platform, orders, crash)
    assert not any(outcome.replayed for outcome in outcomes)


def test_i12_callers_who_come_while_postgres_restarts(platform: Platform) -> None:
    """They wait for it, or are told to try again; nobody meets an internal error, and no order becomes two jobs."""
    orders = [
        ClientRequest(number=next(_numbers), token="postgres-away:sandbox", starts_at=n / 10, mode="async") for n in range(20)
    ]

    def crash() -> None:
        eventually(lambda: sum(_states(platform, orders).values()) >= 3, what="some accepted")
        platform.children["postgres"].send(signal.SIGINT)

    _run(platform, orders, crash)


def test_i7_a_watchdog_exit_while_saving(platform: Platform, notices: list[str]) -> None:
    """Upstream's file server is slower than a step may take: the worker exits, and the rows re-drive the save."""
    orders = _orders("slow-files", 2, script="[[seconds:0.5]]")
    set_faults(platform, {"latency": 9, "paths": ["/_media"]})

    def crash() -> None:
        eventually(lambda: any("exit code 70" in notice for notice in notices), what="a watchdog exit")
        set_faults(platform, {})

    _run(platform, orders, crash)


def test_i4_a_submit_slower_than_every_patience(platform: Platform) -> None:
    """The call ends at its own deadline; the poll finds the job by its key, and it is not ordered again."""
    orders = _orders("slow-submit", 2, script="[[seconds:1]][[latency:10]]")
    _, snapshot = _run(platform, orders)
    assert [job["attempt"] for job in snapshot.jobs] == [1, 1]


def test_i4_workers_that_sleep_through_their_lease(platform: Platform, notices: list[str]) -> None:
    """All workers stand still in the middle of their calls until the leases are over, and then go on as if nothing was.

    What they had claimed must not be ordered twice, whoever acts first: they themselves, or who took over.
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
    assert any("exit code 70" in notice for notice in notices), notices
