"""Rate limits in a real Redis: concurrent requests are counted together, with the same result as one by one."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.support.engine import Engine
from worker.messaging.rate_limits import RateLimitStatus, RequestLimits

Status = RateLimitStatus | None


def run(engine: Engine, work: Callable[[RequestLimits], Awaitable[None]]) -> None:
    async def inside() -> None:
        limits = RequestLimits()
        try:
            await work(limits)
        finally:
            await limits.close()

    asyncio.run(inside())


async def count(limits: RequestLimits, requests: int, *rules: tuple[str, int]) -> list[Status]:
    return list(await asyncio.gather(*(limits.count(list(rules)) for _ in range(requests))))


def facts(statuses: list[Status]) -> list[tuple[bool, int]]:
    return [(one.allowed, one.remaining) for one in statuses if one is not None]


def commands(engine: Engine) -> int:
    return sum(int(facts["calls"]) for name, facts in engine.redis.info("commandstats").items() if "evalsha" in name)


def test_requests_together_have_the_statuses_of_requests_one_by_one(engine: Engine) -> None:
    async def work(limits: RequestLimits) -> None:
        assert facts(await count(limits, 20, ("user:a", 50))) == [(True, 49 - n) for n in range(20)]
        assert facts([await limits.count([("user:a", 50)])]) == [(True, 29)]

    run(engine, work)


def test_requests_together_need_few_commands(engine: Engine) -> None:
    async def work(limits: RequestLimits) -> None:
        await count(limits, 1, ("user:a", 1000))
        before = commands(engine)
        await count(limits, 200, ("user:a", 1000))
        assert commands(engine) - before <= 10

    run(engine, work)


def test_requests_beyond_the_limit_are_refused_one_by_one(engine: Engine) -> None:
    async def work(limits: RequestLimits) -> None:
        statuses = facts(await count(limits, 8, ("user:a", 5)))
        assert statuses == [(True, 4 - n) for n in range(5)] + [(False, 0)] * 3

    run(engine, work)


def test_request_that_a_later_rule_refuses_counts_under_no_rule(engine: Engine) -> None:
    async def work(limits: RequestLimits) -> None:
        statuses = facts(await count(limits, 6, ("user:a", 100), ("key:k", 4)))
        assert statuses == [(True, 3 - n) for n in range(4)] + [(False, 0)] * 2
        (user, key) = await limits.peek([("user:a", 100), ("key:k", 4)])
        assert user is not None
        assert key is not None
        assert (user.remaining, key.remaining) == (96, 0)

    run(engine, work)


def test_callers_are_counted_apart(engine: Engine) -> None:
    async def work(limits: RequestLimits) -> None:
        both = await asyncio.gather(count(limits, 3, ("user:a", 3)), count(limits, 3, ("user:b", 3)))
        assert [facts(one) for one in both] == [[(True, 2), (True, 1), (True, 0)]] * 2

    run(engine, work)


def test_without_redis_nothing_is_refused(engine: Engine) -> None:
    engine.configure(REDIS_URL="redis://127.0.0.1:1/0")

    async def work(limits: RequestLimits) -> None:
        assert await count(limits, 5, ("user:a", 1)) == [None] * 5

    run(engine, work)
