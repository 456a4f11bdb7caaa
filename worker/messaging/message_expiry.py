"""When a message is too old to be handled, by one clock for all hosts: that of Redis.

Celery's own `expires` is a wall-clock time of the sender, which the worker compares with its wall clock. If two clocks
differ by more than a few seconds, every tick counts as expired, and nothing is done until the clocks agree.
"""

import threading
import time
from typing import Any

import redis
from celery import Task, signals
from celery.exceptions import Ignore

from worker.core.observability.logging import get_logger
from worker.messaging.redis_connection import redis_client

log = get_logger("queue")

# A worker that comes back must not find a backlog of outdated messages: the tick enqueues what is still due.
MESSAGE_EXPIRES_SECONDS = 30.0
_EXPIRES_SECONDS = {
    "dreamery.tick": 2.0,
    "dreamery.sweep": 4.0,
    "dreamery.refresh": 50.0,
    "dreamery.ledger": 50.0,
    "dreamery.upkeep": 300.0,
}
# The header of a message: until when it is handled, in seconds of the clock of Redis.
_HEADER = "dreamery_until"
_ASK_AGAIN_SECONDS = 30.0
_ASK_AGAIN_AFTER_ERROR_SECONDS = 5.0


class BrokerClock:
    """The clock of Redis, read from the monotonic clock of this process and asked for again from time to time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offset: float | None = None
        self._ask_at = 0.0

    def now(self) -> float | None:
        """Return the time of Redis in epoch seconds; None = not known yet."""
        if time.monotonic() >= self._ask_at and self._lock.acquire(blocking=False):
            try:
                self._ask()
            finally:
                self._lock.release()
        return None if self._offset is None else time.monotonic() + self._offset

    def _ask(self) -> None:
        try:
            before = time.monotonic()
            seconds, microseconds = redis_client().time()
            after = time.monotonic()
        except redis.RedisError:
            self._ask_at = time.monotonic() + _ASK_AGAIN_AFTER_ERROR_SECONDS
            return
        self._offset = float(seconds) + float(microseconds) / 1e6 - (before + after) / 2
        self._ask_at = after + _ASK_AGAIN_SECONDS


broker_clock = BrokerClock()


@signals.before_task_publish.connect  # type: ignore[untyped-decorator]  # the library has no types
def _note_expiry(sender: str = "", headers: dict[str, Any] | None = None, **_: Any) -> None:
    now = broker_clock.now()
    if headers is not None and now is not None:
        headers[_HEADER] = now + _EXPIRES_SECONDS.get(sender, MESSAGE_EXPIRES_SECONDS)


class ExpiringTask(Task):  # type: ignore[misc]  # the library has no types
    """A task that ignores messages past their time. A message without a time, or of unknown age, is handled."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        until = self.request.get(_HEADER)
        now = broker_clock.now() if until is not None else None
        if until is not None and now is not None and now > float(until):
            log.info("message_expired", task=self.name, seconds=round(now - float(until), 1))
            raise Ignore
        return super().__call__(*args, **kwargs)
