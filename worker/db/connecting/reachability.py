"""Whether Postgres can be reached, and why not.

While it does not answer, a thread tries to connect again and again, and all callers fail at once with the reason: else
every thread of a process would wait for it in turn, and requests for minutes.
"""

import threading
import time
from collections.abc import Callable

import psycopg

from worker.core.observability.logging import get_logger
from worker.db.connecting.connection import BoundedConnection
from worker.db.connecting.reasons import reason_for_operators

log = get_logger("db")

# A server that refuses at once is no burden: callers ask it themselves.
_SLOW_SECONDS = 0.5
_PAUSE_SECONDS = 0.5
_LOG_SECONDS = 60.0

Opener = Callable[[], BoundedConnection]


class Reachability:
    """The state of the connections of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._generation = 0
        self.forget()

    def forget(self) -> None:
        """Start anew, for a new engine."""
        with self._lock:
            self._generation += 1  # ends the thread
            self._lost_at: float | None = None
            self._silent = False
            self._reason = ""
            self._logged: tuple[str, float] = ("", 0.0)

    @property
    def seconds_away(self) -> float:
        """For how long no connection could be made; 0 = the last one could."""
        lost_at = self._lost_at
        return 0.0 if lost_at is None else time.monotonic() - lost_at

    @property
    def is_silent(self) -> bool:
        """Whether the server did not answer the last attempt to connect; a server that refuses does answer."""
        return self._silent

    def connect(self, open_connection: Opener) -> BoundedConnection:
        """Connect. Raises OperationalError, at once while the server is known not to answer."""
        if self._silent:
            raise psycopg.OperationalError(self._reason)
        started = time.monotonic()
        try:
            connection = open_connection()
        except psycopg.Error as error:
            self._record_failure(error, open_connection, silent=time.monotonic() - started > _SLOW_SECONDS)
            raise
        self._record_success()
        return connection

    def _record_failure(self, error: Exception, open_connection: Opener, *, silent: bool) -> None:
        reason, now = reason_for_operators(error), time.monotonic()
        with self._lock:
            if self._lost_at is None:
                self._lost_at = now
            self._reason = reason
            starts = silent and not self._silent
            self._silent = silent
            is_new = self._logged[0] != reason or now - self._logged[1] > _LOG_SECONDS
            if is_new:
                self._logged = (reason, now)
        if is_new:
            log.warning("database_lost", reason=reason)
        if starts:
            arguments = (open_connection, self._generation)
            threading.Thread(target=self._ask, args=arguments, name="database-probe", daemon=True).start()

    def _record_success(self) -> None:
        if self._lost_at is None:
            return
        with self._lock:
            seconds, self._lost_at, self._silent, self._logged = self.seconds_away, None, False, ("", 0.0)
        log.info("database_found_again", seconds=round(seconds, 1))

    def _ask(self, open_connection: Opener, generation: int) -> None:
        """Run in a thread until the server answers or refuses."""
        pause = threading.Event()
        while self._silent and self._generation == generation:
            pause.wait(_PAUSE_SECONDS)
            started = time.monotonic()
            try:
                connection = open_connection()
            except Exception as error:  # noqa: BLE001 - callers wait for this thread, whatever happens
                if self._generation == generation:
                    silent = time.monotonic() - started > _SLOW_SECONDS
                    self._record_failure(error, open_connection, silent=silent)
            else:
                connection.close()
                if self._generation == generation:
                    self._record_success()


reachability = Reachability()
