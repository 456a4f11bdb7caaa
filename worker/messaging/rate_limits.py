"""Rate limits of generation requests per caller and minute, counted in Redis for all API processes.

The counts may be approximate, and no request is refused while Redis is unavailable. Limits that must be exact (slots,
submit pace, open jobs) are counted in Postgres.
"""

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.messaging.redis_connection import create_async_pool
from worker.messaging.redis_errors import REDIS_ERRORS, explain

log = get_logger("limits")

_TIMEOUT_SECONDS = 0.5
# Do not call Redis for this long after a failure: otherwise each request would wait for the timeout.
_PAUSE_SECONDS = 5.0
_CONNECTIONS = 16
# How long a request waits for a free connection.
_CONNECTION_WAIT_SECONDS = 2.0

_Item = tuple[RateLimitItemPerMinute, str]


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """Status of a limit: requests per minute, remaining requests, and seconds until the window is empty."""

    allowed: bool
    limit: int
    remaining: int
    reset_seconds: float


class RequestLimits:
    """The counters of one API process. An instance belongs to one event loop."""

    def __init__(self) -> None:
        self._pool = create_async_pool(
            get_settings().redis_url,
            connections=_CONNECTIONS,
            wait_seconds=_CONNECTION_WAIT_SECONDS,
            seconds=_TIMEOUT_SECONDS,
        )
        storage = RedisStorage(
            "async+redis://",  # the pool knows the server
            implementation="redispy",
            key_prefix="dreamery:limits",
            connection_pool=self._pool,  # type: ignore[arg-type]  # its hint names plain values only
        )
        self._counters = SlidingWindowCounterRateLimiter(storage)
        self._paused_until = 0.0
        # Requests that wait for the count of the previous ones, by their rules.
        self._waiting: dict[tuple[tuple[str, int], ...], list[asyncio.Future[RateLimitStatus | None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def count(self, rules: list[tuple[str, int]]) -> RateLimitStatus | None:
        """Count one request under every rule (subject, limit per minute), unless a rule refuses it.

        Return the status of the tightest rule; None = no rules, or Redis is unavailable. Requests with the same rules
        that arrive while the previous ones are counted are counted together.
        """
        if not rules or time.monotonic() < self._paused_until:
            return None
        key = tuple(rules)
        done: asyncio.Future[RateLimitStatus | None] = asyncio.get_running_loop().create_future()
        if (waiting := self._waiting.get(key)) is not None:
            waiting.append(done)
        else:
            self._waiting[key] = [done]
            task = asyncio.create_task(self._count_waiting(key), context=contextvars.Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await done

    async def _count_waiting(self, key: tuple[tuple[str, int], ...]) -> None:
        items = [(RateLimitItemPerMinute(limit), subject) for subject, limit in key]
        batch: list[asyncio.Future[RateLimitStatus | None]] = []
        try:
            while batch := self._waiting[key]:
                self._waiting[key] = []
                for done, status in zip(batch, await self._count_many(items, len(batch)), strict=True):
                    if not done.done():
                        done.set_result(status)
        finally:
            # Only if the loop stops, or for an error that is none of Redis.
            for done in [*batch, *self._waiting.pop(key)]:
                done.cancel()

    async def _count_many(self, items: list[_Item], requests: int) -> list[RateLimitStatus | None]:
        """Count requests together if all of them are allowed, else one by one; return their statuses in order."""
        try:
            if requests > 1 and await self._take(items, cost=requests):
                last = await self._tightest(items, allowed=True)
                return [replace(last, remaining=last.remaining + after) for after in reversed(range(requests))]
            return [await self._tightest(items, allowed=await self._take(items, cost=1)) for _ in range(requests)]
        except REDIS_ERRORS as error:
            self._pause(error)
            return [None] * requests

    async def _take(self, items: list[_Item], *, cost: int) -> bool:
        # A request that a later rule refuses must not count under an earlier one.
        *earlier, last = items
        for rule, subject in earlier:
            if not await self._counters.test(rule, subject, cost=cost):
                return False
        if not await self._counters.hit(*last, cost=cost):
            return False
        for rule, subject in earlier:
            await self._counters.hit(rule, subject, cost=cost)
        return True

    async def peek(self, rules: list[tuple[str, int]]) -> list[RateLimitStatus | None]:
        """Return the status of each rule without counting a request; None = Redis is unavailable."""
        found: list[RateLimitStatus | None] = []
        for subject, limit in rules:
            if time.monotonic() < self._paused_until:
                found.append(None)
                continue
            try:
                found.append(await self._tightest([(RateLimitItemPerMinute(limit), subject)], allowed=True))
            except REDIS_ERRORS as error:
                self._pause(error)
                found.append(None)
        return found

    async def _tightest(self, rules: list[_Item], *, allowed: bool) -> RateLimitStatus:
        statuses = []
        for rule, subject in rules:
            stats = await self._counters.get_window_stats(rule, subject)
            reset = max(stats.reset_time - time.time(), 0.0)
            statuses.append(
                RateLimitStatus(
                    allowed=allowed, limit=rule.amount, remaining=max(stats.remaining, 0), reset_seconds=reset
                )
            )
        return min(statuses, key=lambda status: status.remaining)

    async def is_limit_reached(self, kind: str, who: str, *, per_minute: int) -> bool:
        """Return whether `who` reached the limit of this kind in the last minute; False if Redis is unavailable."""
        rule = RateLimitItemPerMinute(per_minute, namespace=kind)
        return await self._call(lambda: self._counters.test(rule, who), default=True) is False

    async def record(self, kind: str, who: str, *, per_minute: int) -> None:
        """Count one event of this kind, for `is_limit_reached`."""
        rule = RateLimitItemPerMinute(per_minute, namespace=kind)
        await self._call(lambda: self._counters.hit(rule, who), default=True)

    async def _call(self, operation: Callable[[], Awaitable[bool]], *, default: bool) -> bool:
        if time.monotonic() < self._paused_until:
            return default
        try:
            return await operation()
        except REDIS_ERRORS as error:
            self._pause(error)
            return default

    def _pause(self, error: BaseException) -> None:
        self._paused_until = time.monotonic() + _PAUSE_SECONDS
        log.warning("request_limits_away", reason=explain(error))

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.aclose()
