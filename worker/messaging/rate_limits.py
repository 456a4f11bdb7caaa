"""How many creating requests a caller may send in a minute, counted in Redis for all API processes together.

A courtesy to everybody else, not a lock: counts may be approximate, and without Redis nobody is refused. What must hold
(slots, pace, open jobs) is counted in Postgres.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import redis.asyncio
from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.messaging.pubsub import BUS_ERRORS

log = get_logger("limits")

_TIMEOUT_SECONDS = 0.5
# After a failure Redis is left alone for so long, or each request would wait for it.
_PAUSE_SECONDS = 5.0
_CONNECTIONS = 16
# How long a request waits for one of them; a burst of hundreds shares them.
_TURN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """Where a caller stands: how many requests a minute, how many are left, in how many seconds all are free again."""

    allowed: bool
    limit: int
    remaining: int
    reset_seconds: float


class RequestLimits:
    """The counters as one API process asks for them. Belongs to the event loop that uses it."""

    def __init__(self) -> None:
        self._pool = redis.asyncio.BlockingConnectionPool.from_url(
            get_settings().redis_url,
            max_connections=_CONNECTIONS,
            timeout=_TURN_SECONDS,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
        )
        storage = RedisStorage(
            f"async+{get_settings().redis_url}",
            implementation="redispy",
            key_prefix="dreamery:limits",
            connection_pool=self._pool,  # type: ignore[arg-type]  # its hint names plain values only
        )
        self._counters = SlidingWindowCounterRateLimiter(storage)
        self._paused_until = 0.0

    async def count(self, rules: list[tuple[str, int]]) -> RateLimitStatus | None:
        """Count one request under every rule (whose, how many a minute), unless it is one too many under any of them.

        The tightest standing of them. None = not limited, or Redis is away.
        """
        counted = [(RateLimitItemPerMinute(most), whose) for whose, most in rules]
        if not counted or time.monotonic() < self._paused_until:
            return None
        # A request that a later rule refuses must not use up an earlier one.
        *before, last = counted
        try:
            allowed = True
            for rule, whose in before:
                allowed = allowed and await self._counters.test(rule, whose)
            if allowed and await self._counters.hit(*last):
                for rule, whose in before:
                    await self._counters.hit(rule, whose)
            else:
                allowed = False
            return await self._tightest([*before, last], allowed=allowed)
        except BUS_ERRORS as error:
            self._pause(error)
            return None

    async def look(self, rules: list[tuple[str, int]]) -> list[RateLimitStatus | None]:
        """Where each rule stands, counting nothing; None = Redis is away."""
        found: list[RateLimitStatus | None] = []
        for whose, most in rules:
            if time.monotonic() < self._paused_until:
                found.append(None)
                continue
            try:
                found.append(await self._tightest([(RateLimitItemPerMinute(most), whose)], allowed=True))
            except BUS_ERRORS as error:
                self._pause(error)
                found.append(None)
        return found

    async def _tightest(self, rules: list[tuple[RateLimitItemPerMinute, str]], *, allowed: bool) -> RateLimitStatus:
        stands = []
        for rule, whose in rules:
            stats = await self._counters.get_window_stats(rule, whose)
            reset = max(stats.reset_time - time.time(), 0.0)
            stands.append(
                RateLimitStatus(
                    allowed=allowed, limit=rule.amount, remaining=max(stats.remaining, 0), reset_seconds=reset
                )
            )
        return min(stands, key=lambda stand: stand.remaining)

    async def is_over(self, kind: str, who: str, *, per_minute: int) -> bool:
        """Whether as much of a kind was noted of somebody in the last minute. False when Redis is away."""
        rule = RateLimitItemPerMinute(per_minute, namespace=kind)
        return await self._asked(lambda: self._counters.test(rule, who), otherwise=True) is False

    async def note(self, kind: str, who: str, *, per_minute: int) -> None:
        """Note one of a kind, for `is_over`."""
        rule = RateLimitItemPerMinute(per_minute, namespace=kind)
        await self._asked(lambda: self._counters.hit(rule, who), otherwise=True)

    async def _asked(self, question: Callable[[], Awaitable[bool]], *, otherwise: bool) -> bool:
        if time.monotonic() < self._paused_until:
            return otherwise
        try:
            return await question()
        except BUS_ERRORS as error:
            self._pause(error)
            return otherwise

    def _pause(self, error: BaseException) -> None:
        self._paused_until = time.monotonic() + _PAUSE_SECONDS
        log.warning("request_limits_away", reason=type(error).__name__)

    async def close(self) -> None:
        """Give the connections back."""
        await self._pool.aclose()
