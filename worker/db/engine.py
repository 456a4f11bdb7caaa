"""The database engine and `transaction()`: the only access to Postgres.

Actions that need committed data (publish an event, enqueue a task) are registered with `tx.on_commit` and run after the
commit; a rollback drops them (I2).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import psycopg
from sqlalchemy import URL, Connection, Engine, Row, TextClause, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    DataError,
    DisconnectionError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings

log = get_logger("db")

# `Row` is exported for tasks and api, which must not import sqlalchemy.
__all__ = [
    "DATABASE_ERRORS",
    "DATABASE_UNAVAILABLE_ERRORS",
    "ROW_ERRORS",
    "Row",
    "Transaction",
    "get_engine",
    "is_database_away",
    "retry_when_database_unavailable",
    "transaction",
]

# Every error that a caller of this package can get from the database.
DATABASE_ERRORS: tuple[type[Exception], ...] = (SQLAlchemyError,)
# The errors that are not about the statement: Postgres is unreachable, restarting or too busy.
DATABASE_UNAVAILABLE_ERRORS: tuple[type[Exception], ...] = (OperationalError, InterfaceError, PoolTimeoutError)

# Errors of what was written, not of the database: one row of a batch caused them, and the others can be written alone.
ROW_ERRORS: tuple[type[Exception], ...] = (
    DataError,
    IntegrityError,
    ProgrammingError,
    InternalError,
    ValueError,
    TypeError,
)

# SQLSTATE classes of a server that refuses every statement: connection, resources, operator intervention.
_AWAY_CLASSES = ("08", "53", "57")
_QUERY_CANCELED = "57014"


def is_database_away(error: Exception) -> bool:
    """Whether no statement can succeed now. A statement that waited too long, for example for a lock, is no reason."""
    if not isinstance(error, OperationalError):
        return isinstance(error, DATABASE_UNAVAILABLE_ERRORS)
    # None = there was no answer: the connection broke.
    state = getattr(error.orig, "sqlstate", None)
    return state is None or (state.startswith(_AWAY_CLASSES) and state != _QUERY_CANCELED)


# A restart of Postgres takes seconds; a task or a request waits for it instead of failing.
RETRY_SECONDS = 15
_SESSION_OPTIONS = (
    "-c statement_timeout=10000 -c idle_in_transaction_session_timeout=15000 -c lock_timeout=5000 "
    "-c idle_session_timeout=120000"
)
# A pooled connection that was used more recently is not pinged.
PING_AFTER_SECONDS = 1.0


class Transaction:
    """A connection inside a transaction, with actions to run after the commit."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._after: list[Callable[[], object]] = []

    def run(self, statement: TextClause | Any, parameters: dict[str, Any] | list[dict[str, Any]] | None = None) -> Any:
        """Execute a statement, once per parameter set if a list is given."""
        return self._connection.execute(statement, parameters)

    def first(self, statement: TextClause | Any, parameters: dict[str, Any] | None = None) -> Row[Any] | None:
        """Execute and return the first row, or None."""
        row: Row[Any] | None = self._connection.execute(statement, parameters).first()
        return row

    def all(self, statement: TextClause | Any, parameters: dict[str, Any] | None = None) -> list[Row[Any]]:
        """Execute and return every row."""
        return list(self._connection.execute(statement, parameters).all())

    def on_commit(self, action: Callable[[], object]) -> None:
        """Run `action` after the commit. Its failure is logged and not raised: the commit cannot be undone."""
        self._after.append(action)

    def run_after_commit(self) -> None:
        """Run the actions that `on_commit` registered."""
        for action in self._after:
            try:
                action()
            except Exception:
                log.warning("after_commit_failed", exc_info=True)


@lru_cache(maxsize=1)
def get_engine() -> Engine:
    """Return the engine of this process, created on first use (never at import, never before a fork)."""
    settings = get_settings()
    url = make_url(settings.sqlalchemy_url)
    engine = create_engine(
        url,
        pool_size=max(settings.db_pool_size, 4),
        max_overflow=8,
        pool_recycle=1800,
        pool_timeout=10,
        # The connections of a burst are not used afterwards, and the server closes them: each takes 5 MB there.
        pool_use_lifo=True,
        connect_args={
            "connect_timeout": 3,
            "application_name": "dreamery",
            "options": _session_options(url),
        },
    )
    event.listen(engine, "checkout", _ping_when_idle)
    event.listen(engine, "checkin", _record_use)
    return engine


def _session_options(url: URL) -> str:
    """Return our `-c` options and then those of the URL, which win. Alone, an argument would replace the URL's."""
    given = url.query.get("options", ())
    return " ".join([_SESSION_OPTIONS, *((given,) if isinstance(given, str) else given)])


def _record_use(_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


def _ping_when_idle(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Ping an idle connection before use. SQLAlchemy's own pre-ping costs every transaction a round trip."""
    if time.monotonic() - record.info.get("used_at", 0.0) < PING_AFTER_SECONDS:
        return
    try:
        connection.execute("SELECT 1")
        connection.rollback()
    except psycopg.Error as error:
        raise DisconnectionError from error


@contextmanager
def transaction() -> Iterator[Transaction]:
    """Open a transaction. Commits at the end and runs the `on_commit` actions; rolls back on an exception."""
    with get_engine().begin() as connection:
        tx = Transaction(connection)
        yield tx
    tx.run_after_commit()


# A decorator for functions that can be repeated as a whole, because every write in them is guarded.
retry_when_database_unavailable = retry(
    retry=retry_if_exception_type((OperationalError, InterfaceError)),
    wait=wait_random_exponential(multiplier=0.1, max=2),
    stop=stop_after_delay(RETRY_SECONDS),
    reraise=True,
)
