"""A repeated failure on a real database: exact under concurrency, across API processes, and over the pauses of clients."""

import asyncio
import random
from uuid import UUID

import pytest

from api.generation.acceptance import accept
from api.http.request_tracker import RequestTracker, TrackedRequest
from tests.integration.worker.db.test_idempotency import CALLER, make_plan, pool, run, send, track
from tests.support.engine import Engine

__all__ = ["pool"]  # a fixture


def fail(engine: Engine, made: TrackedRequest, *, code: str = "generation_failed") -> None:
    """End the jobs and the HTTP request with the failure."""
    engine.sql(
        """UPDATE jobs SET state = 'failed', error_code = :code, finished_at = clock_timestamp(),
               submitted_at = clock_timestamp(), holds_slot = false WHERE group_id = :id""",
        code=code,
        id=made.group_id,
    )
    made.failed = True
    made.end("answered")


def pass_time(engine: Engine, seconds: float) -> None:
    """Move the failures into the past."""
    engine.sql("UPDATE jobs SET finished_at = finished_at - make_interval(secs => :s)", s=seconds)
    engine.sql(
        """UPDATE requests SET failure_repeated_at = failure_repeated_at - make_interval(secs => :s),
               ended_at = ended_at - make_interval(secs => :s)""",
        s=seconds,
    )


def test_concurrent_repeats_at_two_processes_get_the_failure_without_a_job(engine: Engine) -> None:
    dice = random.Random(3)

    async def work(one: RequestTracker, two: RequestTracker) -> None:
        made, first = await send(one, "prompt")
        fail(engine, made)

        async def repeat() -> list[UUID]:
            await asyncio.sleep(dice.uniform(0, 0.2))
            tracked, accepted = await send(dice.choice([one, two]), "prompt")
            await asyncio.sleep(dice.uniform(0, 0.05))
            tracked.failed = True
            tracked.end("answered")
            assert accepted.replayed
            return accepted.job_ids

        assert await asyncio.gather(*(repeat() for _ in range(40))) == [first.job_ids] * 40

    run(work)
    assert len(engine.sql("SELECT id FROM jobs")) == 1


@pytest.mark.parametrize(
    ("gaps", "client"),
    [
        ((1, 2, 4, 8, 16, 32), "LangChain JS, shortest pauses"),
        ((2, 4, 8, 16, 32, 64), "LangChain JS, longest pauses"),
        ((2, 4), "AI SDK"),
        ((0.5, 1, 2, 4, 8), "LiteLLM"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_attempts_with_growing_pauses_are_one_job(engine: Engine, gaps, client) -> None:
    async def work(one: RequestTracker, two: RequestTracker) -> None:
        made, first = await send(one, client)
        fail(engine, made)
        for number, gap in enumerate(gaps):
            pass_time(engine, gap)
            _, accepted = await send((one, two)[number % 2], client)
            assert accepted.job_ids == first.job_ids

    run(work)
    assert len(engine.sql("SELECT id FROM jobs")) == 1


@pytest.mark.parametrize(
    ("code", "held", "over"), [("generation_failed", 29, 31), ("content_policy_violation", 590, 601)]
)
def test_new_job_after_the_time_of_the_setting(engine: Engine, code, held, over) -> None:
    async def work(one: RequestTracker, two: RequestTracker) -> None:
        for seconds, joins in ((held, True), (over, False)):
            made, first = await send(one, f"prompt {seconds}")
            fail(engine, made, code=code)
            pass_time(engine, seconds)
            _, accepted = await send(two, f"prompt {seconds}")
            assert (accepted.job_ids == first.job_ids) is joins

    run(work)


def test_repeats_extend_the_time_to_a_limit(engine: Engine) -> None:
    async def work(one: RequestTracker, _two: RequestTracker) -> None:
        made, first = await send(one, "prompt")
        fail(engine, made)
        for _ in range(7):
            pass_time(engine, 20)
            _, accepted = await send(one, "prompt")
            assert accepted.job_ids == first.job_ids
        pass_time(engine, 20)
        _, accepted = await send(one, "prompt")
        assert accepted.job_ids != first.job_ids

    run(work)


@pytest.mark.parametrize(
    "settings", [{"REPEAT_FAILURE_SECONDS": "0"}, {"DEDUPLICATE_REQUESTS": "false"}], ids=["0 seconds", "off"]
)
def test_repeating_failures_can_be_disabled(engine: Engine, settings) -> None:
    engine.configure(**settings)

    async def work(one: RequestTracker, _two: RequestTracker) -> None:
        made, first = await send(one, "prompt")
        made.group_id = first.job_ids[0]
        fail(engine, made)
        _, accepted = await send(one, "prompt")
        assert accepted.job_ids != first.job_ids

    run(work)


def test_second_call_while_the_first_is_open_is_a_job_of_its_own(engine: Engine) -> None:
    async def work(one: RequestTracker, two: RequestTracker) -> None:
        _, first = await send(one, "prompt")
        engine.sql("UPDATE jobs SET state = 'failed', error_code = 'generation_failed', finished_at = now()")
        for process in (one, two):
            _, accepted = await send(process, "prompt")
            assert accepted.job_ids != first.job_ids

    run(work)


def test_caller_who_wants_new_jobs_gets_them(engine: Engine) -> None:
    async def work(one: RequestTracker, _two: RequestTracker) -> None:
        made, first = await send(one, "prompt")
        fail(engine, made)
        again = track(one)
        again.wants_new_jobs = True
        accepted = await accept(make_plan("prompt"), caller=CALLER, key=None, tracked=again)
        assert accepted.job_ids != first.job_ids

    run(work)


def test_succeeded_or_cancelled_jobs_are_no_failure(engine: Engine) -> None:
    async def work(one: RequestTracker, _two: RequestTracker) -> None:
        for state in ("succeeded", "cancelled"):
            made, first = await send(one, state)
            engine.sql(
                "UPDATE jobs SET state = :state, finished_at = now() WHERE id = :id", state=state, id=first.job_ids[0]
            )
            made.end("answered")
            _, accepted = await send(one, state)
            assert accepted.job_ids != first.job_ids

    run(work)
