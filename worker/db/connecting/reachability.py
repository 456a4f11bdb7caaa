"""Whether Postgres can be reached, and why not.

While it does not answer, one caller at a time tries to connect, and the others fail at once with the same reason: else
every thread of a process would wait for it in turn, and requests for minutes.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import psycopg

from worker.core.observability.logging import get_logger
from worker.db.connecting.reasons import reason_for_operators

log = get_logger("db")

_T = TypeVar("_T")

# A server that refuses is no burden: only attempts that take longer are made one by one.
_SLOW_SECONDS = 0.5
_LOG_SECONDS = 60.0


class Reachability:
    """The state of the connections of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Start anew, for a new engine."""
        self._lost_at: float | None = None
        self._reason = ""
        self._slow = False
        self._trying = False
        self._logged: tuple[str, float] = ("", 0.0)

    @property
    def seconds_away(self) -> float:
        """For how long no connection could be made; 0 = the last one could."""
        lost_at = self._lost_at
        return 0.0 if lost_at is None else time.monotonic() - lost_at

    def connect(self, open_connection: Callable[[], _T]) -> _T:
        """Connect, or raise OperationalError at once while another caller waits for a server that does not answer."""
        with self._lock:
            if self._slow and self._trying:
                raise psycopg.OperationalError(self._reason)
            alone = self._slow
            self._trying = self._trying or alone
        started = time.monotonic()
        try:
            connection = open_connection()
        except psycopg.Error as error:
            self._record_failure(error, slow=time.monotonic() - started > _SLOW_SECONDS)
            raise
        else:
            self._record_success()
            return connection
        finally:
            if alone:
                self._trying = False

    def _record_failure(self, error: psycopg.Error, *, slow: bool) -> None:
        reason, now = reason_for_operators(error), time.monotonic()
        with self._lock:
            if self._lost_at is None:
                self._lost_at = now
            self._reason, self._slow = reason, slow
            if self._logged[0] == reason and now - self._logged[1] < _LOG_SECONDS:
                return
            self._logged = (reason, now)
        log.warning("database_lost", reason=reason)

    def _record_success(self) -> None:
        if self._lost_at is None:
            return
        with self._lock:
            seconds, self._lost_at, self._slow, self._logged = self.seconds_away, None, False, ("", 0.0)
        log.info("database_found_again", seconds=round(seconds, 1))


reachability = Reachability()
