"""The consumer of a worker: it waits for a Redis that is away or refuses writes, and says why in the log."""

import threading
import time
from typing import Any

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

from worker.core.observability.logging import get_logger
from worker.messaging.redis_connection import find_redis_problem

log = get_logger("queue")

_SHORTEST_PAUSE = 0.5
_LONGEST_PAUSE = 4.0
# A connection that lasted this long was a good one: the next pause is a short one again.
_GOOD_SECONDS = 30.0
# How often a problem that stays the same is logged.
_LOG_SECONDS = 60.0


class PatientConsumer(Consumer):  # type: ignore[misc]  # the library has no types
    """Connects only while Redis accepts writes.

    Celery itself would connect at once to a server that answers, fail with the first message, and begin again without a
    pause. After a long outage it would wait for half a minute.
    """

    _never = threading.Event()
    _pause = _SHORTEST_PAUSE
    _connected_at = 0.0

    def connect(self) -> Any:
        """Connect as soon as Redis can be used. Called at the start and after each loss of the connection."""
        if self._connected_at:
            lasted = time.monotonic() - self._connected_at
            self._pause = _SHORTEST_PAUSE if lasted > _GOOD_SECONDS else min(self._pause * 2, _LONGEST_PAUSE)
            self._sleep()
        self._wait_for_redis()
        self._connected_at = time.monotonic()
        return super().connect()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Give up a lost connection.

        While it is closed, kombu wants to put messages back that were not acknowledged, over what it has closed
        already. That would end the worker. Nothing is lost: the tick finds the rows of such a message.
        """
        try:
            super().on_connection_error_after_connected(exc)
        except AttributeError as error:
            log.warning("connection_closed_halfway", reason=str(error))
            self.connection = None

    def _wait_for_redis(self) -> None:
        logged, logged_at = "", 0.0
        while problem := find_redis_problem():
            if problem != logged or time.monotonic() - logged_at > _LOG_SECONDS:
                log.warning("waiting_for_redis", reason=problem)
                logged, logged_at = problem, time.monotonic()
            self._sleep()
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        if logged:
            log.warning("redis_is_back")

    def _sleep(self) -> None:
        end = time.monotonic() + self._pause
        while time.monotonic() < end:
            maybe_shutdown()  # raises when the worker was asked to stop
            self._never.wait(0.1)
