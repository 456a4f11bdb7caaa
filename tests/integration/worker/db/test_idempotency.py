"""Deduplication on a real database: which jobs a repeated request joins, with random timing and dead API processes."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from api.auth.caller import Caller
from api.generation.acceptance import AcceptedRequest, GenerationPlan, accept
from api.http.request_tracker import LEASE_SECONDS, End, RequestTracker, TrackedRequest
from tests.support import factories
from tests.support.engine import Engine
from tests.support.platform import eventually
from worker.core.errors import DreameryError
from worker.core.job_state import in_group
from worker.db.engine import transaction
from worker.db.jobs import idempotency, queries
from worker.db.jobs.inputs import _NEEDED

CALLER = Caller(owner="tokens:test")
ROUTE = "POST /v1/images/generations"


@pytest.fixture(autouse=True)
def pool(engine: Engine) -> UUID:
    return engine.add_account(pool=True)


def make_plan(fingerprint: str) -> GenerationPlan:
    return GenerationPlan(jobs=[factories.new_job([], owner=CALLER.owner)], n=1, fingerprint=fingerprint)


def track(tracker: RequestTracker, *, retries: int = 0) -> TrackedRequest:
    made = TrackedRequest(tracker=tracker, retries=retries, route=ROUTE)
    tracker._requests[made.id] = made
    return made


async def send(
    tracker: RequestTracker, fingerprint: str, *, retries: int = 0, key: str | None = None
) -> tuple[TrackedRequest, AcceptedRequest]:
    """Track an HTTP request and accept it."""
    made = track(tracker, retries=retries)
    return made, await accept(make_plan(fingerprint), caller=CALLER, key=key, tracked=made)


def run(work: Callable[[RequestTracker, RequestTracker], Awaitable[None]]) -> None:
    """Run with the request trackers of two API processes."""

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
    """Like `kill -9`: no more heartbeats, and no ends are recorded."""
    assert tracker._task is not None
    tracker._task.cancel()


def test_client_retries_never_create_a_second_job(engine: Engine) -> None:
    """Each client has its own prompt; its requests end in every way, at any process, and are retried 0 to 3 times."""
    dice = random.Random(4)

    async def client(processes: tuple[RequestTracker, ...], number: int) -> set[UUID]:
        seen: set[UUID] = set()
        for retries in range(dice.randrange(1, 5)):
            await asyncio.sleep(dice.uniform(0, 0.05))
            # Every other client does not mark its retries, so its requests must not have been answered.
            made, accepted = await send(dice.choice(processes), f"prompt {number}", retries=retries * (number % 2))
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


def test_concurrent_clients_with_the_same_request_get_one_job_each(engine: Engine) -> None:
    """All first requests are open at the same time; in any order of the retries there is one job per client."""
    dice = random.Random(5)
    clients = 12

    async def repeat(process: RequestTracker, retries: int) -> set[UUID]:
        await asyncio.sleep(dice.uniform(0, 0.1))
        made, accepted = await send(process, "the same", retries=retries)
        await asyncio.sleep(dice.uniform(0, 0.1))
        made.end(dice.choice(["timeout", "cut"]))
        return set(accepted.job_ids)

    async def work(*processes: RequestTracker) -> None:
        first = await asyncio.gather(*(send(dice.choice(processes), "the same") for _ in range(clients)))
        made = {accepted.job_ids[0] for _, accepted in first}
        assert len(made) == clients
        for one, _ in first:
            one.end("cut")
        for retries in (1, 2):
            found = await asyncio.gather(*(repeat(dice.choice(processes), retries) for _ in range(clients)))
            assert set.union(*found) <= made
        unmarked = await asyncio.gather(*(send(dice.choice(processes), "the same") for _ in range(clients)))
        assert {accepted.job_ids[0] for _, accepted in unmarked} == made

    run(work)
    assert len(engine.sql("SELECT id FROM jobs")) == clients


def test_concurrent_marked_retries_are_one_job(engine: Engine) -> None:
    """A client in front of an SDK retries too, so two retries of one request can be concurrent."""

    async def work(one: RequestTracker, two: RequestTracker) -> None:
        made, first = await send(one, "prompt")
        made.end("cut")
        found = await asyncio.gather(*(send(process, "prompt", retries=1) for process in (one, two) * 5))
        assert {tuple(accepted.job_ids) for _, accepted in found} == {tuple(first.job_ids)}

    run(work)


def test_open_requests_of_a_dead_process_count_as_cut(engine: Engine) -> None:
    async def work(one: RequestTracker, two: RequestTracker) -> None:
        _, marked = await send(one, "marked")
        _, unmarked = await send(one, "unmarked")
        die(one)
        found = await asyncio.gather(send(two, "marked", retries=1), send(two, "unmarked"))
        assert [accepted.job_ids for _, accepted in found] == [marked.job_ids, unmarked.job_ids]
        assert found[1][0].waited <= LEASE_SECONDS + 1

    run(work)


def test_open_requests_of_a_live_process_are_not_joined(engine: Engine) -> None:
    async def work(one: RequestTracker, two: RequestTracker) -> None:
        _, first = await send(one, "prompt")
        late, second = await send(two, "prompt")
        assert second.job_ids != first.job_ids
        assert late.waited < LEASE_SECONDS, "the next heartbeat was enough"

    run(work)


def test_retry_waits_for_an_end_that_is_recorded_late(engine: Engine) -> None:
    """The retry arrives before the end of the first connection is recorded."""

    async def work(one: RequestTracker, two: RequestTracker) -> None:
        made, first = await send(one, "prompt")
        asyncio.get_running_loop().call_later(0.5, made.end, "cut")
        _, repeat = await send(two, "prompt", retries=1)
        assert repeat.job_ids == first.job_ids

    run(work)


def test_retry_waits_while_the_first_request_is_being_accepted(engine: Engine) -> None:
    """Postgres is slow; the client gives up and retries at another process."""

    async def work(one: RequestTracker, two: RequestTracker) -> None:
        with engine.connect() as blocker:
            blocker.execute("LOCK TABLE jobs IN SHARE MODE")
            first = asyncio.create_task(send(one, "prompt"))
            await asyncio.sleep(0.3)
            again = asyncio.create_task(send(two, "prompt", retries=1))
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


def test_client_past_its_announced_timeout_counts_as_disconnected(engine: Engine) -> None:
    """Even without a recorded end, for example when the network fails silently."""

    async def work(one: RequestTracker, two: RequestTracker) -> None:
        made = track(one)
        made.client_timeout = 3.0
        first = await accept(make_plan("prompt"), caller=CALLER, key=None, tracked=made)
        engine.sql("UPDATE requests SET gives_up_at = now() - interval '1 second'")
        for process in (one, two):
            _, repeat = await send(process, "prompt")
            assert repeat.job_ids == first.job_ids
            engine.sql("UPDATE requests SET gives_up_at = now() - interval '1 second'")

    run(work)


def test_old_requests_are_not_joined(engine: Engine) -> None:
    async def work(one: RequestTracker, two: RequestTracker) -> None:
        made, first = await send(one, "prompt")
        made.end("cut")
        await asyncio.to_thread(eventually, lambda: one.find(made.id) is None)
        engine.sql("UPDATE requests SET ended_at = now() - interval '6 minutes'")
        _, unmarked = await send(two, "prompt")
        assert unmarked.job_ids != first.job_ids, "older than five minutes"
        engine.sql("UPDATE requests SET accepted_at = now() - interval '31 minutes'")
        _, marked = await send(two, "prompt", retries=1)
        assert marked.job_ids not in (first.job_ids, unmarked.job_ids), "older than half an hour"

    run(work)


def test_client_that_disconnects_before_acceptance_creates_no_job(engine: Engine) -> None:
    async def work(one: RequestTracker, _two: RequestTracker) -> None:
        disconnected_request = track(one)
        disconnected_request.disconnected.set()
        with pytest.raises(DreameryError, match="client_disconnected"):
            await accept(make_plan("prompt"), caller=CALLER, key=None, tracked=disconnected_request)

    run(work)
    assert engine.sql("SELECT 1 FROM jobs") == engine.sql("SELECT 1 FROM requests") == []


def test_deduplication_can_be_disabled(engine: Engine) -> None:
    engine.configure(DEDUPLICATE_REQUESTS="off")

    async def work(one: RequestTracker, _two: RequestTracker) -> None:
        made, first = await send(one, "prompt")
        made.end("cut")
        _, again = await send(one, "prompt", retries=1)
        assert again.job_ids != first.job_ids
        _, keyed = await send(one, "prompt", key="k")
        _, duplicate = await send(one, "prompt", key="k")
        assert keyed.job_ids == duplicate.job_ids

    run(work)


@pytest.mark.parametrize(
    "code",
    [
        "insufficient_quota",  # 429
        "rate_limit_exceeded",
        "upstream_risk_control",  # 503
        "no_account_available",
        "accounts_need_login",
        "upstream_session_expired",  # 401 or 503
    ],
)
def test_idempotency_key_of_refused_jobs_is_reused_by_one_request(engine: Engine, code: str) -> None:
    """Concurrent retries with a key whose jobs failed at no cost create exactly one new job."""

    async def work(*processes: RequestTracker) -> None:
        _, first = await send(processes[0], "prompt", key="k")
        engine.sql("UPDATE jobs SET state = 'failed', error_code = :code, finished_at = now()", code=code)
        found = await asyncio.gather(*(send(process, "prompt", key="k") for process in processes * 5))
        jobs = {tuple(accepted.job_ids) for _, accepted in found}
        assert len(jobs) == 1
        assert tuple(first.job_ids) not in jobs
        assert sum(not accepted.replayed for _, accepted in found) == 1

    run(work)


def test_idempotency_key_of_submitted_jobs_is_kept(engine: Engine) -> None:
    async def work(one: RequestTracker, _two: RequestTracker) -> None:
        _, first = await send(one, "prompt", key="k")
        engine.sql(
            """UPDATE jobs SET state = 'failed', error_code = 'insufficient_quota', finished_at = now(),
                   submitted_at = now()"""
        )
        _, again = await send(one, "prompt", key="k")
        assert again.job_ids == first.job_ids

    run(work)


def test_idempotency_key_of_deleted_jobs_returns_error(engine: Engine) -> None:
    async def work(one: RequestTracker, _two: RequestTracker) -> None:
        await send(one, "prompt", key="k")
        made, unkeyed = await send(one, "prompt")
        made.end("cut")
        engine.sql("UPDATE jobs SET state = 'cancelled', finished_at = now(), deleted_at = now()")
        with pytest.raises(DreameryError, match="job_deleted"):
            await send(one, "prompt", key="k")
        _, fresh = await send(one, "prompt", retries=1)
        assert fresh.job_ids != unkeyed.job_ids

    run(work)


def test_expired_requests_are_deleted(engine: Engine) -> None:
    async def work(one: RequestTracker, _two: RequestTracker) -> None:
        for key in (None, "young", "old"):
            await send(one, f"prompt {key}", key=key)

    run(work)
    engine.sql("UPDATE requests SET accepted_at = now() - interval '1 hour'")
    engine.sql("UPDATE requests SET accepted_at = now() - interval '25 hours' WHERE key = 'old'")
    engine.sql("INSERT INTO api_processes (id, seen_at) VALUES (:id, now() - interval '2 hours')", id=uuid4())
    with transaction() as tx:
        assert idempotency.delete_expired_requests(tx) == 2
    assert [row.key for row in engine.sql("SELECT key FROM requests")] == ["young"]
    assert engine.sql("SELECT 1 FROM api_processes") == []
    assert len(engine.sql("SELECT 1 FROM jobs")) == 3


def test_deleting_jobs_deletes_their_request(engine: Engine) -> None:
    async def work(one: RequestTracker, _two: RequestTracker) -> None:
        await send(one, "prompt")

    run(work)
    engine.sql("DELETE FROM jobs")
    assert engine.sql("SELECT 1 FROM requests") == []


def groups_of(engine: Engine, sizes: list[int]) -> dict[UUID, list[UUID]]:
    """Make requests with so many jobs each; returns the ids of the jobs by group."""
    groups: dict[UUID, list[UUID]] = {}
    for size in sizes:
        jobs = [engine.add_job(owner=CALLER.owner) for _ in range(size)]
        engine.sql("UPDATE jobs SET group_id = :first WHERE id = ANY(:ids)", first=jobs[0], ids=jobs)
        groups[jobs[0]] = sorted(jobs)
    return groups


def test_jobs_of_a_request_are_its_first_and_later_ones(engine: Engine) -> None:
    groups = groups_of(engine, [1, 3, 1, 2])
    later = [job for jobs in groups.values() for job in jobs[1:]]
    with transaction() as tx:
        assert {first: queries.group_members(tx, first) for first in groups} == groups
        assert [queries.group_members(tx, job) for job in later] == [[]] * len(later)
        assert queries.existing_groups(tx, [*groups, *later, uuid4()]) == set(groups)
        # After the retention took the first job.
        first = next(first for first, jobs in groups.items() if len(jobs) == 3)
        tx.run(text("DELETE FROM job_events WHERE job_id = :id"), {"id": first})
        tx.run(text("DELETE FROM jobs WHERE id = :id"), {"id": first})
        assert queries.group_members(tx, first) == groups[first][1:]
        assert queries.existing_groups(tx, [first]) == {first}


@pytest.mark.parametrize(
    "statement",
    [
        f"SELECT id FROM jobs WHERE {in_group(':one')}",
        f"SELECT id FROM jobs WHERE {in_group('ANY(:many)')}",
        f"SELECT 1 FROM requests r WHERE r.group_id = :one AND {idempotency._REFUSED}",
        f"SELECT 1 FROM jobs j WHERE j.id = :one AND NOT EXISTS ({_NEEDED})",
        idempotency._SIMILAR.text,
    ],
    ids=["one group", "many groups", "refused requests", "needed inputs", "similar requests"],
)
def test_jobs_of_a_request_are_found_through_indexes(engine: Engine, statement: str) -> None:
    groups = groups_of(engine, [1] * 150 + [3] * 10)
    values = {"one": next(iter(groups)), "many": list(groups)[:3], "temporary_codes": ["no_accounts"], "days": 30}
    more = {"hours": 1, "fingerprints": ["a"], "routes": [ROUTE], "caller": CALLER.owner, "minutes": 30}
    with transaction() as tx:
        tx.run(text("ANALYZE jobs"))
        tx.run(text("SET LOCAL enable_seqscan = off"))
        asked = {
            name: value for name, value in (values | more | {"content_codes": []}).items() if f":{name}" in statement
        }
        plan = "\n".join(row[0] for row in tx.all(text(f"EXPLAIN {statement}"), asked))
    assert "Index Scan on ix_jobs_later_in_group" in plan, plan
    assert "Seq Scan on jobs" not in plan, plan
    assert "Index Scan on pk_jobs" in plan, plan
