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
from tests.support.crash.load_clients import Crowd, Order, Outcome, storm_orders
from tests.support.crash.platform_snapshot import Books, tracebacks
from tests.support.platform import eventually, processes_of, start_platform
from worker.local.supervisor import Platform

SLOTS = 3
# The order of times is kept, only quicker: call 3 s < watchdog 4.5 s < lease 6 s < lease + grace 9 s.
QUICK = {
    "DREAMERY_REQUESTS_PER_MINUTE": "0",  # the crowd are few callers who ask much
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
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, list[str]]]:
    notices: list[str] = []
    folder = tmp_path_factory.mktemp("town")
    with start_platform(folder, workers=2, extra_env=QUICK, on_notice=notices.append) as platform:
        yield platform, notices
        logs = platform.logs_dir
    assert not (found := tracebacks(logs)), f"{len(found)} tracebacks\n" + "\n".join(found[:20])
    assert not processes_of(folder)


@pytest.fixture
def platform(town: tuple[Platform, list[str]]) -> Iterator[Platform]:
    """The shared platform, well: no faults, every process up, workers listening."""
    platform, _ = town
    set_faults(platform, {})
    eventually(lambda: _is_well(platform), within=60, what="the platform is well again")
    yield platform
    set_faults(platform, {})
    for child in platform.children.values():
        child.send(signal.SIGCONT)


@pytest.fixture
def notices(town: tuple[Platform, list[str]]) -> list[str]:
    """What the supervisor tells of deaths during this test."""
    town[1].clear()
    return town[1]


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
    orders = storm_orders(random.Random(seed), count=110, tokens=tokens, within=14)
    with Chaos(platform, seed=seed, pause=1.4) as chaos:
        outcomes, crowd = asyncio.run(_crowd_of(platform.url, orders, within=130))
    books = _books_at_the_end(platform, orders)
    _print_figures(books, outcomes, crowd, chaos, notices)
    assert not books.open_jobs, "\n".join(books.story(job["id"]) for job in books.open_jobs)
    assert chaos.failure is None, chaos.failure
    assert not crowd.troubles, "\n".join(crowd.troubles)
    assert len(books.jobs) >= 95
    books.assert_paid_once()
    books.assert_limits_kept(slots=SLOTS)
    books.assert_history_sound()
    books.assert_files_stored({order.number: order.files for order in orders})
    _assert_ended_as_wanted(books, outcomes)


async def _crowd_of(url: str, orders: list[Order], *, within: float) -> tuple[list[Outcome], Crowd]:
    async with Crowd(url) as crowd:
        places = {asyncio.create_task(crowd.place(order)): order for order in orders}
        _, late = await asyncio.wait(places, timeout=within)
        for task in late:
            task.cancel()
        outcomes = await asyncio.gather(*places, return_exceptions=True)
        crowd.troubles += [f"no end seen in time: {places[task].prompt}" for task in late]
        crowd.troubles += [
            f"{places[task].prompt}: {task.exception()!r}" for task in places if task not in late and task.exception()
        ]
    return [outcome for outcome in outcomes if isinstance(outcome, Outcome)], crowd


def _books(platform: Platform, orders: list[Order]) -> Books:
    return Books(platform, [order.number for order in orders])


def _books_at_the_end(platform: Platform, orders: list[Order]) -> Books:
    """Callers have left; what they left behind ends too, or is shown by the books."""
    deadline = time.monotonic() + 30
    while (books := _books(platform, orders)).open_jobs and time.monotonic() < deadline:
        time.sleep(0.5)
    return books


def _assert_ended_as_wanted(books: Books, outcomes: list[Outcome]) -> None:
    job_of = {books.number_of(job): job for job in books.jobs}
    words = {"succeeded": "completed"}
    for outcome in outcomes:
        order = outcome.order
        job = job_of.get(order.number)
        if order.manner == "once" and outcome.status == "lost":
            if job is not None:
                assert words.get(job["state"], job["state"]) in order.ends, books.story(job["id"])
            continue
        assert job is not None, f"accepted, but no row: {outcome}"
        story = f"{outcome}\n{books.story(job['id'])}"
        assert outcome.job_ids == {f"job_{job['id'].hex}"}, story
        assert words.get(job["state"], job["state"]) == outcome.status, story
        assert outcome.status in order.ends, story
        if outcome.promised_cancel:
            assert outcome.status == "cancelled", story
        if outcome.status == "failed":
            assert outcome.code == job["error_code"] == order.code, story
        if outcome.status == "completed":
            assert len(outcome.urls) == order.files, story


def _print_figures(books: Books, outcomes: list[Outcome], crowd: Crowd, chaos: Chaos, notices: list[str]) -> None:
    ends = Counter(job["state"] for job in books.jobs)
    attempts = Counter(job["attempt"] for job in books.jobs)
    adopted = sum(
        1
        for e in books.events
        if e["to_state"] == "running" and e["actor"] == "poll" and e["from_state"] == "submitting"
    )
    requeued = sum(1 for e in books.events if e["from_state"] == "submitting" and e["to_state"] == "queued")
    deaths = Counter(notice.split(" ended ")[0] + " " + notice.split("(")[1].split(")")[0] for notice in notices)
    closed = [job for job in books.jobs if job["finished_at"]]
    first, last = min(j["created_at"] for j in books.jobs), max(j["finished_at"] for j in closed)
    ended = Counter(int((job["finished_at"] - first).total_seconds()) // 10 * 10 for job in closed)
    print(f"ended in each 10 s: {[ended[second] for second in range(0, max(ended) + 1, 10)]}")
    totals = books.ledger["totals"]
    print(f"jobs {len(books.jobs)} {dict(ends)} in {(last - first).total_seconds():.1f} s; attempts {dict(attempts)}")
    print(f"found by key {adopted}, requeued {requeued}; client repeats {crowd.repeats}")
    print(f"ledger {totals}; max in flight {[a['max_in_flight'] for a in books.ledger['accounts'].values()]}")
    print(f"blows {dict(Counter(chaos.blows))}; deaths {dict(deaths)}")


# ---- one crash at a time


def _orders(name: str, number: int, *, script: str = "", manner: str = "async") -> list[Order]:
    """Like orders of one caller, whose session is its own."""
    return [
        Order(number=next(_numbers), token=f"{name}:sandbox", script=script, seed=n % 2, manner=manner)  # type: ignore[arg-type]
        for n in range(number)
    ]


def _run(
    platform: Platform, orders: list[Order], meanwhile: Callable[[], object] | None = None, *, within: float = 60
) -> tuple[list[Outcome], Books]:
    """Place the orders, do something meanwhile in a thread, and check the books when all have ended."""

    async def scene() -> tuple[list[Outcome], Crowd]:
        work: list[Awaitable[object]] = [asyncio.to_thread(meanwhile)] if meanwhile else []
        results = await asyncio.gather(_crowd_of(platform.url, orders, within=within), *work)
        return results[0]  # type: ignore[return-value]

    outcomes, crowd = asyncio.run(scene())
    books = _books(platform, orders)
    assert not crowd.troubles, "\n".join(crowd.troubles + [books.story(job["id"]) for job in books.open_jobs])
    assert len(outcomes) == len(orders)
    books.assert_paid_once()
    books.assert_limits_kept(slots=SLOTS)
    books.assert_history_sound()
    books.assert_files_stored({order.number: order.files for order in orders})
    _assert_ended_as_wanted(books, outcomes)
    return outcomes, books


def _states(platform: Platform, orders: list[Order]) -> Counter[str]:
    return Counter(job["state"] for job in _books(platform, orders).jobs)


def _restarted(platform: Platform, name: str, pid: int) -> bool:
    child = platform.children[name]
    return child.pid != pid and child.exit_code is None


def _kill(platform: Platform, *names: str) -> None:
    """Kill and wait until each has a new process."""
    pids = {name: platform.children[name].pid for name in names}
    for name in names:
        platform.children[name].kill9()
    eventually(lambda: all(_restarted(platform, name, pids[name]) for name in names), what=f"{names} started again")


def test_i7_all_workers_killed_while_jobs_run(platform: Platform) -> None:
    orders = _orders("killed-workers", 9, script="[[seconds:2]]")

    def crash() -> None:
        eventually(lambda: _states(platform, orders)["running"] == SLOTS, what="jobs running")
        _kill(platform, "worker-1", "worker-2")

    _run(platform, orders, crash)


def test_i12_the_api_killed_while_callers_wait(platform: Platform) -> None:
    """The jobs go on without it, and a caller who repeats with the same Idempotency-Key gets the pictures."""
    orders = _orders("killed-api", 6, script="[[seconds:2]]", manner="wait")

    def crash() -> None:
        eventually(lambda: sum(_states(platform, orders).values()) == 6, what="all accepted")
        _kill(platform, "api")

    outcomes, books = _run(platform, orders, crash)
    assert all(outcome.replayed for outcome in outcomes)
    assert len(books.accepted) == len(orders)


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
    orders = _orders("killed-redis", 8, script="[[seconds:1.5]]", manner="wait")

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
    orders = _orders(f"postgres-{blow.name}", 8, script="[[seconds:1.5]]", manner="wait")

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
        Order(number=next(_numbers), token="postgres-away:sandbox", starts_at=n / 10, manner="async") for n in range(20)
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
    _, books = _run(platform, orders)
    assert [job["attempt"] for job in books.jobs] == [1, 1]


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
