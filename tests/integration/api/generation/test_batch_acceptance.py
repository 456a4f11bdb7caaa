"""Acceptance in batches on a real database: concurrent requests of a caller share transactions, and nothing else."""

import asyncio
import io
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import structlog
from sqlalchemy import event
from sqlalchemy.exc import DataError

from api.auth.caller import Caller
from api.generation.acceptance import AcceptedRequest, GenerationPlan, accept
from api.http.request_tracker import RequestTracker, TrackedRequest
from tests.support import factories
from tests.support.engine import Engine
from worker import celery_tasks, storage
from worker.core.errors import DreameryError
from worker.core.quotas import OwnLimits
from worker.db.engine import get_engine, transaction
from worker.db.jobs.inputs import NewInput, StoredInput
from worker.db.platform import state
from worker.db.users import users

ROUTE = "POST /v1/images/generations"
Send = Callable[..., Awaitable[AcceptedRequest]]
Outcome = AcceptedRequest | BaseException


@pytest.fixture(autouse=True)
def pool(engine: Engine) -> UUID:
    return engine.add_account(pool=True)


def add_user(name: str, **hard: Any) -> Caller:
    """A new user as a caller, with these limits."""
    with transaction() as tx:
        row = users.add_user(tx, name=name, role="member")
        assert row is not None
    return Caller(owner=f"user:{row.id}", user_id=row.id, name=name, user_limits=OwnLimits(hard=hard))


@pytest.fixture
def alice() -> Caller:
    return add_user("alice")


def make_plan(caller: Caller, prompt: str, **changes: Any) -> GenerationPlan:
    job = factories.new_job([], prompt=prompt, owner=caller.owner, user_id=caller.user_id)
    return replace(GenerationPlan(jobs=[job], n=1, fingerprint=prompt), **changes)


class Process:
    """An API process that accepts requests."""

    def __init__(self, tracker: RequestTracker) -> None:
        self.tracker = tracker

    def track(self, **changes: Any) -> TrackedRequest:
        made = TrackedRequest(tracker=self.tracker, route=ROUTE, **changes)
        self.tracker._requests[made.id] = made
        return made

    async def send(
        self, caller: Caller, prompt: str, *, key: str | None = None, tracked: TrackedRequest | None = None, **plan: Any
    ) -> AcceptedRequest:
        return await accept(make_plan(caller, prompt, **plan), caller=caller, key=key, tracked=tracked or self.track())

    async def send_all(self, *requests: Awaitable[AcceptedRequest]) -> list[Outcome]:
        return list(await asyncio.gather(*requests, return_exceptions=True))


def run(work: Callable[[Process], Awaitable[None]]) -> None:
    async def inside() -> None:
        tracker = RequestTracker()
        await tracker.start()
        try:
            await work(Process(tracker))
        finally:
            await tracker.stop()

    asyncio.run(inside())


def transactions(engine: Engine) -> int:
    """The number of transactions that inserted the jobs."""
    return len(engine.sql("SELECT DISTINCT xmin::text FROM jobs"))


def accepted(outcomes: list[Outcome]) -> list[AcceptedRequest]:
    return [one for one in outcomes if isinstance(one, AcceptedRequest)]


def codes(outcomes: list[Outcome]) -> list[str]:
    return [one.code for one in outcomes if isinstance(one, DreameryError)]


class LostAnswers:
    """Commits the next transaction that accepts jobs, and closes its connection before the answer arrives."""

    def __init__(self) -> None:
        self.lost = 0

    def commit(self, connection: Any) -> None:
        raw = connection.connection.driver_connection
        inserted = raw.execute("SELECT count(*) FROM jobs WHERE xmin::text = pg_current_xact_id_if_assigned()::text")
        if self.lost == 0 and inserted.fetchone()[0]:
            self.lost += 1
            raw.execute("COMMIT")
            raw.close()


@pytest.fixture
def lost_answers() -> Iterator[LostAnswers]:
    answers = LostAnswers()
    event.listen(get_engine(), "commit", answers.commit)
    yield answers
    event.remove(get_engine(), "commit", answers.commit)


def test_concurrent_requests_of_a_caller_share_a_transaction(engine: Engine, alice: Caller) -> None:
    async def work(process: Process) -> None:
        outcomes = await process.send_all(*(process.send(alice, f"prompt {n}") for n in range(50)))
        assert len({one.job_ids[0] for one in accepted(outcomes)}) == 50

    run(work)
    assert transactions(engine) <= 3
    rows = engine.sql("SELECT id, group_id, turn, params #>> '{order,prompt}' AS prompt FROM jobs ORDER BY turn")
    assert [row.prompt for row in rows] == [f"prompt {n}" for n in range(50)], "in the order of arrival"
    assert all(row.id == row.group_id for row in rows)
    assert [round(row.turn - rows[0].turn, 6) for row in rows] == [float(n) for n in range(50)]
    assert len(engine.sql("SELECT 1 FROM job_events WHERE seq = 1 AND to_state = 'queued'")) == 50
    ended = engine.sql("SELECT r.ended_how FROM requests r JOIN jobs j ON j.group_id = r.group_id")
    assert len(ended) == 50


def test_inputs_and_request_ids_belong_to_their_request(engine: Engine, alice: Caller) -> None:
    async def one(process: Process, n: int) -> AcceptedRequest:
        structlog.contextvars.bind_contextvars(request_id=f"req_{n}")
        return await process.send(alice, f"prompt {n}", inputs=[NewInput(url=f"https://example.org/{n}.png")])

    async def work(process: Process) -> None:
        await process.send_all(*(asyncio.create_task(one(process, n)) for n in range(5)))

    run(work)
    assert transactions(engine) == 1
    rows = engine.sql(
        """SELECT j.params #>> '{order,prompt}' AS prompt, j.origin ->> 'request_id' AS request, i.url
           FROM jobs j JOIN job_inputs i ON i.job_id = j.id ORDER BY j.turn"""
    )
    assert rows == [(f"prompt {n}", f"req_{n}", f"https://example.org/{n}.png") for n in range(5)]


def test_request_that_postgres_rejects_fails_alone(engine: Engine, alice: Caller) -> None:
    async def work(process: Process) -> None:
        prompts = [f"prompt {n}" for n in range(20)]
        # Postgres stores no NUL; the real routes reject it before.
        outcomes = await process.send_all(*(process.send(alice, one) for one in [*prompts, "a \0 boat"]))
        assert len(accepted(outcomes)) == 20
        assert isinstance(outcomes[-1], DataError)

    run(work)
    assert len(engine.sql("SELECT 1 FROM jobs")) == len(engine.sql("SELECT 1 FROM requests")) == 20


def test_more_rows_of_a_request_are_written_with_it(engine: Engine, alice: Caller) -> None:
    async def work(process: Process) -> None:
        requests = [process.send(alice, f"prompt {n}") for n in range(3)]
        special = process.send(alice, "special", extra_write=lambda tx: state.write(tx, "special", {"written": True}))
        assert len(accepted(await process.send_all(*requests, special))) == 4

    run(work)
    with transaction() as tx:
        assert (state.read(tx, "special") or {})["written"]
    assert transactions(engine) == 2, "the special request has its own transaction"


def test_batch_reaches_a_limit_exactly(engine: Engine) -> None:
    engine.configure(BUDGET_WARN_PERCENT="0")
    alice = add_user("alice", jobs_per_day=10)

    async def work(process: Process) -> None:
        assert len(accepted(await process.send_all(*(process.send(alice, f"prompt {n}") for n in range(10))))) == 10
        assert (
            codes(await process.send_all(*(process.send(alice, f"more {n}") for n in range(3))))
            == ["budget_exceeded"] * 3
        )

    run(work)
    assert transactions(engine) == 1
    assert len(engine.sql("SELECT 1 FROM requests")) == 10


@pytest.mark.parametrize("limit", ["jobs_per_day", "open_jobs"])
def test_batch_beyond_a_limit_is_accepted_up_to_it(engine: Engine, limit: str) -> None:
    alice = add_user("alice", **{limit: 10})

    async def work(process: Process) -> None:
        outcomes = await process.send_all(*(process.send(alice, f"prompt {n}") for n in range(15)))
        assert len(accepted(outcomes)) == 10
        assert set(codes(outcomes)) == {"queue_full" if limit == "open_jobs" else "budget_exceeded"}
        # 80 percent: each request reports its own usage.
        used = [one.warnings[0].used for one in accepted(outcomes) if one.warnings]
        assert used == [8, 9, 10]

    run(work)
    assert len(engine.sql("SELECT 1 FROM jobs")) == 10


def test_batch_beyond_the_open_jobs_of_the_platform_is_accepted_up_to_it(engine: Engine, alice: Caller) -> None:
    engine.configure(OPEN_JOBS_PER_CALLER="4")

    async def work(process: Process) -> None:
        outcomes = await process.send_all(*(process.send(alice, f"prompt {n}") for n in range(6)))
        assert (len(accepted(outcomes)), codes(outcomes)) == (4, ["queue_full"] * 2)

    run(work)


def test_unknown_price_in_a_batch_needs_a_credit_that_the_others_leave(engine: Engine) -> None:
    """Of jobs that cost 5 credits each or an unknown number, two with a price fill the limit, in this order."""
    engine.configure(BUDGET_WARN_PERCENT="0")
    alice = add_user("alice", credits_per_day=10)
    engine.sql(
        """CREATE FUNCTION priced() RETURNS trigger LANGUAGE plpgsql AS $$
               BEGIN NEW.price := (NEW.params #>> '{order,prompt}')::integer; RETURN NEW;
               EXCEPTION WHEN OTHERS THEN NEW.price := NULL; RETURN NEW; END $$;
           CREATE TRIGGER priced BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION priced()"""
    )
    try:

        async def work(process: Process) -> None:
            outcomes = await process.send_all(*(process.send(alice, prompt) for prompt in ("5", " 5 ", "unknown")))
            assert (len(accepted(outcomes)), codes(outcomes)) == (2, ["budget_exceeded"])

        run(work)
    finally:
        engine.sql("DROP TRIGGER priced ON jobs; DROP FUNCTION priced()")


def test_repeated_idempotency_key_in_a_batch_is_one_job(engine: Engine, alice: Caller) -> None:
    async def work(process: Process) -> None:
        others = [process.send(alice, f"prompt {n}", key=f"key {n}") for n in range(5)]
        same = [process.send(alice, "the same", key="k") for _ in range(5)]
        reused = process.send(alice, "another", key="k")
        outcomes = await process.send_all(*others, *same, reused)
        assert len(accepted(outcomes)) == 10
        repeated = accepted(outcomes)[5:]
        assert len({tuple(one.job_ids) for one in repeated}) == 1
        assert [one.replayed for one in repeated] == [False, True, True, True, True]
        assert codes(outcomes) == ["idempotency_key_reuse"]

    run(work)
    assert len(engine.sql("SELECT 1 FROM jobs")) == 6


def test_known_idempotency_key_in_a_batch_is_replayed(engine: Engine, alice: Caller) -> None:
    async def work(process: Process) -> None:
        first = await process.send(alice, "prompt", key="k")
        others = [process.send(alice, f"prompt {n}", key=f"key {n}") for n in range(5)]
        outcomes = await process.send_all(*others, process.send(alice, "prompt", key="k"))
        assert outcomes[-1] == AcceptedRequest(job_ids=first.job_ids, n=1, replayed=True)

    run(work)
    assert len(engine.sql("SELECT 1 FROM jobs")) == 6


def test_repeat_of_a_cut_request_joins_within_a_batch(engine: Engine, alice: Caller) -> None:
    async def work(process: Process) -> None:
        made = process.track()
        first = await process.send(alice, "prompt", tracked=made)
        made.end("cut")
        repeat = process.send(alice, "prompt", tracked=process.track(retries=1))
        outcomes = await process.send_all(*(process.send(alice, f"other {n}") for n in range(5)), repeat)
        assert outcomes[-1] == AcceptedRequest(job_ids=first.job_ids, n=1, replayed=True)

    run(work)
    assert len(engine.sql("SELECT 1 FROM jobs")) == 6


def test_equal_requests_in_a_batch_are_separate_jobs(engine: Engine, alice: Caller) -> None:
    """They are open at the same time, so none is the repeat of another."""

    async def work(process: Process) -> None:
        for _ in range(2):
            outcomes = await process.send_all(*(process.send(alice, "the same") for _ in range(5)))
            assert len({one.job_ids[0] for one in accepted(outcomes)}) == 5

    run(work)
    assert len(engine.sql("SELECT 1 FROM jobs")) == 10
    assert transactions(engine) == 2


def test_marked_repeats_of_cut_requests_in_a_batch_create_no_job(engine: Engine, alice: Caller) -> None:
    """Equal requests whose connections were cut, all repeated at the same time: each joins one of the jobs."""

    async def work(process: Process) -> None:
        made = [process.track() for _ in range(5)]
        first = await process.send_all(*(process.send(alice, "the same", tracked=one) for one in made))
        for one in made:
            one.end("cut")
        again = [process.track(retries=1) for _ in range(5)]
        repeats = await process.send_all(*(process.send(alice, "the same", tracked=one) for one in again))
        assert {one.job_ids[0] for one in accepted(repeats)} <= {one.job_ids[0] for one in accepted(first)}
        unmarked = await process.send_all(*(process.send(alice, "the same") for _ in range(5)))
        assert len(accepted(unmarked)) == 5

    run(work)


def test_repeated_failure_in_a_batch_is_sent_again(engine: Engine, alice: Caller) -> None:
    """An automatic repeat of a failed request gets its failure; the other requests of the batch are new."""

    async def work(process: Process) -> None:
        made = process.track(body_digest="body")
        first = await process.send(alice, "prompt", tracked=made)
        engine.sql(
            """UPDATE jobs SET state = 'failed', error_code = 'generation_failed', finished_at = now(),
                   submitted_at = now()"""
        )
        made.failed = True
        made.end("answered")
        repeat = process.send(alice, "prompt", tracked=process.track(body_digest="body"))
        changed = process.send(alice, "prompt", tracked=process.track(body_digest="another body"))
        outcomes = await process.send_all(process.send(alice, "other"), repeat, changed)
        assert [one.replayed for one in accepted(outcomes)] == [False, True, False]
        assert accepted(outcomes)[1].job_ids == first.job_ids

    run(work)


def test_request_that_waits_too_long_for_its_key_does_not_fail_the_others(engine: Engine, alice: Caller) -> None:
    """Another process holds the idempotency key in a transaction that hangs."""

    async def work(process: Process) -> None:
        with engine.connect() as blocker:
            blocker.execute(
                """INSERT INTO requests (group_id, caller, route, key, fingerprint, holder, process)
                   VALUES (gen_random_uuid(), %s, %s, 'held', 'prompt', gen_random_uuid(), gen_random_uuid())""",
                [alice.scope, ROUTE],
            )
            others = [asyncio.create_task(process.send(alice, f"prompt {n}", key=f"key {n}")) for n in range(5)]
            held = asyncio.create_task(process.send(alice, "prompt", key="held"))
            assert len(accepted(await process.send_all(*others))) == 5
            assert not held.done()
            await asyncio.to_thread(blocker.rollback)
        assert not (await held).replayed

    run(work)
    assert len(engine.sql("SELECT 1 FROM jobs")) == 6


def test_client_that_disconnects_in_the_waiting_batch_creates_no_job(engine: Engine, alice: Caller) -> None:
    async def work(process: Process) -> None:
        gone = process.track()
        with engine.connect() as blocker:
            blocker.execute("LOCK TABLE jobs IN SHARE MODE")
            first = asyncio.create_task(process.send(alice, "first"))
            await asyncio.sleep(0.1)
            waiting = [asyncio.create_task(process.send(alice, f"prompt {n}")) for n in range(3)]
            late = asyncio.create_task(process.send(alice, "late", tracked=gone))
            await asyncio.sleep(0.1)
            assert not first.done()
            gone.disconnected.set()
            await asyncio.to_thread(blocker.rollback)
        outcomes = await process.send_all(first, *waiting, late)
        assert (len(accepted(outcomes)), codes(outcomes)) == (4, ["client_disconnected"])

    run(work)
    assert len(engine.sql("SELECT 1 FROM jobs")) == len(engine.sql("SELECT 1 FROM requests")) == 4


def test_batches_of_different_callers_run_side_by_side(engine: Engine, alice: Caller) -> None:
    """While the batch of one caller waits for a lock, another caller's batches are accepted."""
    bob = add_user("bob")

    async def work(process: Process) -> None:
        with engine.connect() as blocker:
            blocker.execute("SELECT pg_advisory_xact_lock(hashtextextended('turns ' || %s, 0))", [alice.owner])
            slow = [asyncio.create_task(process.send(alice, f"prompt {n}")) for n in range(30)]
            await asyncio.sleep(0.1)
            for n in range(3):
                outcomes = await process.send_all(*(process.send(bob, f"prompt {n} {m}") for m in range(10)))
                assert len(accepted(outcomes)) == 10
            assert not any(one.done() for one in slow)
            await asyncio.to_thread(blocker.rollback)
        assert len(accepted(await process.send_all(*slow))) == 30

    run(work)
    assert transactions(engine) <= 8


def test_requests_of_a_key_with_changed_limits_are_checked_with_their_own(engine: Engine, alice: Caller) -> None:
    limited = replace(alice, user_limits=OwnLimits(hard={"jobs_per_day": 3}))

    async def work(process: Process) -> None:
        before = [process.send(alice, f"before {n}") for n in range(3)]
        after = [process.send(limited, f"after {n}") for n in range(3)]
        outcomes = await process.send_all(*before, *after)
        assert (len(accepted(outcomes)), codes(outcomes)) == (3, ["budget_exceeded"] * 3)

    run(work)


def test_lost_answer_of_a_batch_is_found(engine: Engine, alice: Caller, lost_answers: LostAnswers) -> None:
    """Postgres commits, but the connection breaks before the answer: the second attempt finds every job."""

    async def work(process: Process) -> None:
        await process.send(alice, "earlier", key="k")
        lost_answers.lost = 0
        requests = [process.send(alice, f"prompt {n}") for n in range(10)]
        requests += [process.send(alice, f"keyed {n}", key=f"key {n}") for n in range(5)]
        # Not in the batch: it repeats an earlier request.
        outcomes = await process.send_all(*requests, process.send(alice, "earlier", key="k"))
        assert [one.replayed for one in accepted(outcomes)] == [False] * 15 + [True]

    run(work)
    assert lost_answers.lost == 1
    assert len(engine.sql("SELECT 1 FROM jobs")) == len(engine.sql("SELECT 1 FROM requests")) == 16


def test_lost_answer_of_a_single_request_is_found(engine: Engine, alice: Caller, lost_answers: LostAnswers) -> None:
    async def work(process: Process) -> None:
        assert not (await process.send(alice, "prompt")).replayed

    run(work)
    assert lost_answers.lost == 1
    assert len(engine.sql("SELECT 1 FROM jobs")) == 1


@pytest.mark.parametrize("key", [None, "k"])
def test_own_commit_that_appears_late_is_no_repeat(engine: Engine, alice: Caller, key: str | None) -> None:
    """The same attempt again, as after a commit that was still going on when the second attempt looked for it."""
    stored = StoredInput(key="inputs/one.png", mime="image/png", bytes=3, width=1, height=1, sha256="")
    plan = make_plan(alice, "prompt", inputs=[NewInput(stored=stored)])

    async def work(process: Process) -> None:
        storage.put_file(stored.key, io.BytesIO(b"one"))
        tracked = process.track()
        outcomes = [await accept(plan, caller=alice, key=key, tracked=tracked) for _ in range(2)]
        assert outcomes[0] == outcomes[1] == AcceptedRequest(job_ids=[plan.jobs[0].id], n=1)
        assert storage.read_file(stored.key) == b"one"

    run(work)
    assert len(engine.sql("SELECT 1 FROM jobs")) == 1


def test_jobs_of_a_process_that_died_before_the_wake_up_are_found(engine: Engine, alice: Caller) -> None:
    """Killed between the commit and the messages: the jobs are in the database, the tick enqueues them."""

    async def work(process: Process) -> None:
        await process.send_all(*(process.send(alice, f"prompt {n}") for n in range(10)))

    run(work)
    engine.take_messages()
    engine.sql("UPDATE jobs SET due_at = now() - interval '10 seconds', nudged_at = NULL")
    celery_tasks.tick()
    assert engine.take_messages("dreamery.submit")
