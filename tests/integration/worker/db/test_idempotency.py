"""Which jobs a repeat joins, on a real database: random interleavings, several API processes, dead ones."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import pytest

from api.auth.dependencies import Caller
from api.generation.acceptance import AcceptedRequest, GenerationPlan, accept
from api.http.request_tracker import LEASE_SECONDS, End, RequestTracker, TrackedRequest
from tests.support import factories
from tests.support.engine import Engine
from tests.support.platform import eventually
from worker.core.errors import DreameryError
from worker.db.engine import transaction
from worker.db.jobs import idempotency

CALLER = Caller(owner="tokens:test")
ROUTE = "POST /v1/images/generations"


@pytest.fixture(autouse=True)
def pool(engine: Engine) -> UUID:
    return engine.add_account(pool=True)


def planned(fingerprint: str) -> GenerationPlan:
    return GenerationPlan(jobs=[factories.new_job([], owner=CALLER.owner)], n=1, fingerprint=fingerprint)


def visit(tracker: RequestTracker, *, retries: int = 0) -> TrackedRequest:
    made = TrackedRequest(tracker=tracker, retries=retries, route=ROUTE)
    tracker._requests[made.id] = made
    return made


async def ask(
    tracker: RequestTracker, fingerprint: str, *, retries: int = 0, key: str | None = None
) -> tuple[TrackedRequest, AcceptedRequest]:
    """An HTTP request as far as its acceptance."""
    made = visit(tracker, retries=retries)
    return made, await accept(planned(fingerprint), caller=CALLER, key=key, visit=made)


def run(work: Callable[[RequestTracker, RequestTracker], Awaitable[None]]) -> None:
    """With two API processes."""

    async def inside() -> None:
        one, two = RequestTracker(), RequestTracker()
        await one.start()
        await two.start()
        try:
            await work(one, two)
        finally:
            await one.stop()
            await two.stop()

    asyncio.run(inside())


def die(tracker: RequestTracker) -> None:
    """As by `kill -9`: no more signs of life, and nothing is noted."""
    assert tracker._task is not None
    tracker._task.cancel()


def test_repeats_of_one_client_never_make_a_second_job(engine: Engine) -> None:
    """Clients with a wish each; their requests end in every way, at any process, and are repeated 0 to 3 times."""
    dice = random.Random(4)

    async def client(processes: tuple[RequestTracker, ...], number: int) -> set[UUID]:
        seen: set[UUID] = set()
        for retries in range(dice.randrange(1, 5)):
            await asyncio.sleep(dice.uniform(0, 0.05))
            # Every other client is one that does not mark its repeats, so it must not have been answered.
            made, accepted = await ask(dice.choice(processes), f"wish {number}", retries=retries * (number % 2))
            seen |= set(accepted.job_ids)
            await asyncio.sleep(dice.uniform(0, 0.05))
            ends: list[End] = ["answered", "timeout", "cut"] if number % 2 else ["timeout", "cut"]
            made.end(dice.choice(ends))
        return seen

    async def work(*processes: RequestTracker) -> None:
        seen = await asyncio.gather(*(client(processes, number) for number in range(40)))
        assert [len(jobs) for jobs in seen] == [1] * 40

    run(work)
    assert len(engine.sql("SELECT id FROM jobs")) == 40


def test_clients_with_the_same_wish_get_a_job_each_and_no_more(engine: Engine) -> None:
    """All first requests are open at the same time; whatever the order of their repeats, there is a job per client."""
    dice = random.Random(5)
    clients = 12

    async def repeat(process: RequestTracker, retries: int) -> set[UUID]:
        await asyncio.sleep(dice.uniform(0, 0.1))
        made, accepted = await ask(process, "the same", retries=retries)
        await asyncio.sleep(dice.uniform(0, 0.1))
        made.end(dice.choice(["timeout", "cut"]))
        return set(accepted.job_ids)

    async def work(*processes: RequestTracker) -> None:
        first = await asyncio.gather(*(ask(dice.choice(processes), "the same") for _ in range(clients)))
        made = {accepted.job_ids[0] for _, accepted in first}
        assert len(made) == clients
        for one, _ in first:
            one.end("cut")
        for retries in (1, 2):
            found = await asyncio.gather(*(repeat(dice.choice(processes), retries) for _ in range(clients)))
            assert set.union(*found) <= made
        unmarked = await asyncio.gather(*(ask(dice.choice(processes), "the same") for _ in range(clients)))
        assert {accepted.job_ids[0] for _, accepted in unmarked} == made

    run(work)
    assert len(engine.sql("SELECT id FROM jobs")) == clients


def test_marked_repeats_at_once_are_one_job(engine: Engine) -> None:
    """A client in front of an SDK repeats too: two repeats of one request may be on the way together."""

    async def work(one: RequestTracker, two: RequestTracker) -> None:
        made, first = await ask(one, "wish")
        made.end("cut")
        found = await asyncio.gather(*(ask(process, "wish", retries=1) for process in (one, two) * 5))
        assert {tuple(accepted.job_ids) for _, accepted in found} == {tuple(first.job_ids)}

    run(work)


def test_open_requests_of_a_dead_process_are_cut(engine: Engine) -> None:
    async def work(one: RequestTracker, two: RequestTracker) -> None:
        _, marked = await ask(one, "marked")
        _, unmarked = await ask(one, "unmarked")
        die(one)
        found = await asyncio.gather(ask(two, "marked", retries=1), ask(two, "unmarked"))
        assert [accepted.job_ids for _, accepted in found] == [marked.job_ids, unmarked.job_ids]
        assert found[1][0].waited <= LEASE_SECONDS + 1

    run(work)


def test_open_requests_of_a_living_process_are_not_joined(engine: Engine) -> None:
    async def work(one: RequestTracker, two: RequestTracker) -> None:
        _, first = await ask(one, "wish")
        late, second = await ask(two, "wish")
        assert second.job_ids != first.job_ids
        assert late.waited < LEASE_SECONDS, "the next sign of life was enough"

    run(work)


def test_an_end_that_is_noted_late_is_waited_for(engine: Engine) -> None:
    """The client's repeat overtakes the news that its first connection is cut."""

    async def work(one: RequestTracker, two: RequestTracker) -> None:
        made, first = await ask(one, "wish")
        asyncio.get_running_loop().call_later(0.5, made.end, "cut")
        _, repeat = await ask(two, "wish", retries=1)
        assert repeat.job_ids == first.job_ids

    run(work)


def test_a_repeat_that_comes_while_the_first_is_being_accepted_waits_for_it(engine: Engine) -> None:
    """Postgres is slow, the client gives up meanwhile and asks again, at another process."""

    async def work(one: RequestTracker, two: RequestTracker) -> None:
        with engine.connect() as blocker:
            blocker.execute("LOCK TABLE jobs IN SHARE MODE")
            first = asyncio.create_task(ask(one, "wish"))
            await asyncio.sleep(0.3)
            again = asyncio.create_task(ask(two, "wish", retries=1))
            await asyncio.sleep(0.3)
            assert not first.done()
            assert not again.done()
            await asyncio.to_thread(blocker.rollback)
        made, accepted = await first
        made.end("cut")
        _, repeat = await again
        assert repeat.job_ids == accepted.job_ids

    run(work)
    assert len(engine.sql("SELECT 1 FROM jobs")) == 1


def test_a_client_whose_own_timeout_is_over_has_hung_up(engine: Engine) -> None:
    """Though no news of it came, as when a network just falls silent."""

    async def work(one: RequestTracker, two: RequestTracker) -> None:
        made = visit(one)
        made.client_timeout = 3.0
        first = await accept(planned("wish"), caller=CALLER, key=None, visit=made)
        engine.sql("UPDATE requests SET gives_up_at = now() - interval '1 second'")
        for process in (one, two):
            _, repeat = await ask(process, "wish")
            assert repeat.job_ids == first.job_ids
            engine.sql("UPDATE requests SET gives_up_at = now() - interval '1 second'")

    run(work)


def test_old_requests_are_not_joined(engine: Engine) -> None:
    async def work(one: RequestTracker, two: RequestTracker) -> None:
        made, first = await ask(one, "wish")
        made.end("cut")
        await asyncio.to_thread(eventually, lambda: one.find(made.id) is None)
        engine.sql("UPDATE requests SET ended_at = now() - interval '6 minutes'")
        _, unmarked = await ask(two, "wish")
        assert unmarked.job_ids != first.job_ids, "five minutes are over"
        engine.sql("UPDATE requests SET accepted_at = now() - interval '31 minutes'")
        _, marked = await ask(two, "wish", retries=1)
        assert marked.job_ids not in (first.job_ids, unmarked.job_ids), "half an hour is over"

    run(work)


def test_whoever_hung_up_before_acceptance_leaves_nothing(engine: Engine) -> None:
    async def work(one: RequestTracker, _two: RequestTracker) -> None:
        gone = visit(one)
        gone.disconnected.set()
        with pytest.raises(DreameryError, match="client_disconnected"):
            await accept(planned("wish"), caller=CALLER, key=None, visit=gone)

    run(work)
    assert engine.sql("SELECT 1 FROM jobs") == engine.sql("SELECT 1 FROM requests") == []


def test_joining_can_be_switched_off(engine: Engine) -> None:
    engine.configure(JOIN_REPEATS="off")

    async def work(one: RequestTracker, _two: RequestTracker) -> None:
        made, first = await ask(one, "wish")
        made.end("cut")
        _, again = await ask(one, "wish", retries=1)
        assert again.job_ids != first.job_ids
        _, keyed = await ask(one, "wish", key="k")
        _, twin = await ask(one, "wish", key="k")
        assert keyed.job_ids == twin.job_ids

    run(work)


def test_a_key_of_refused_jobs_is_taken_by_one_of_many(engine: Engine) -> None:
    """Repeats with a key whose jobs failed at no cost race for a new job: there is one."""

    async def work(*processes: RequestTracker) -> None:
        _, first = await ask(processes[0], "wish", key="k")
        engine.sql("UPDATE jobs SET state = 'failed', error_code = 'insufficient_quota', finished_at = now()")
        found = await asyncio.gather(*(ask(process, "wish", key="k") for process in processes * 5))
        jobs = {tuple(accepted.job_ids) for _, accepted in found}
        assert len(jobs) == 1
        assert tuple(first.job_ids) not in jobs
        assert sum(not accepted.replayed for _, accepted in found) == 1

    run(work)


def test_a_key_of_jobs_that_reached_upstream_stays(engine: Engine) -> None:
    async def work(one: RequestTracker, _two: RequestTracker) -> None:
        _, first = await ask(one, "wish", key="k")
        engine.sql(
            """UPDATE jobs SET state = 'failed', error_code = 'insufficient_quota', finished_at = now(),
                   submitted_at = now()"""
        )
        _, again = await ask(one, "wish", key="k")
        assert again.job_ids == first.job_ids

    run(work)


def test_a_key_of_deleted_jobs_says_so(engine: Engine) -> None:
    async def work(one: RequestTracker, _two: RequestTracker) -> None:
        await ask(one, "wish", key="k")
        made, unkeyed = await ask(one, "wish")
        made.end("cut")
        engine.sql("UPDATE jobs SET state = 'cancelled', finished_at = now(), deleted_at = now()")
        with pytest.raises(DreameryError, match="job_deleted"):
            await ask(one, "wish", key="k")
        _, fresh = await ask(one, "wish", retries=1)
        assert fresh.job_ids != unkeyed.job_ids

    run(work)


def test_what_can_be_repeated_no_more_is_forgotten(engine: Engine) -> None:
    async def work(one: RequestTracker, _two: RequestTracker) -> None:
        for key in (None, "young", "old"):
            await ask(one, f"wish {key}", key=key)

    run(work)
    engine.sql("UPDATE requests SET accepted_at = now() - interval '1 hour'")
    engine.sql("UPDATE requests SET accepted_at = now() - interval '25 hours' WHERE key = 'old'")
    engine.sql("INSERT INTO api_processes (id, seen_at) VALUES (:id, now() - interval '2 hours')", id=uuid4())
    with transaction() as tx:
        assert idempotency.forget_requests(tx) == 2
    assert [row.key for row in engine.sql("SELECT key FROM requests")] == ["young"]
    assert engine.sql("SELECT 1 FROM api_processes") == []
    assert len(engine.sql("SELECT 1 FROM jobs")) == 3


def test_jobs_take_their_request_along(engine: Engine) -> None:
    async def work(one: RequestTracker, _two: RequestTracker) -> None:
        await ask(one, "wish")

    run(work)
    engine.sql("DELETE FROM jobs")
    assert engine.sql("SELECT 1 FROM requests") == []
