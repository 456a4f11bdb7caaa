"""The database engine and `transaction()`: the one way to talk to Postgres.

What must happen only after the data is safe (publish an event, nudge a worker) is queued with `tx.on_commit` and runs
after the commit; a rolled-back transaction drops it (I2).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, Row, TextClause, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings

log = get_logger("db")

# `Row` is exported: rows travel to steps and api, which must not import sqlalchemy.
__all__ = [
    "AWAY_ERRORS",
    "DATABASE_ERRORS",
    "Row",
    "Transaction",
    "get_engine",
    "retry_when_database_away",
    "transaction",
]

# What a reader outside this room may meet when Postgres goes away.
DATABASE_ERRORS: tuple[type[Exception], ...] = (SQLAlchemyError,)
# Of these, the ones that say nothing about the statement: Postgres is away, restarting or too busy.
AWAY_ERRORS: tuple[type[Exception], ...] = (OperationalError, InterfaceError, PoolTimeoutError)

# A restart of Postgres takes seconds; a step or a request rather waits than fails on it.
GUARDED_RETRY_SECONDS = 15
# A pooled connection that was used a moment ago is taken to be alive.
PING_AFTER_SECONDS = 1.0


class Transaction:
    """A connection inside a transaction, and what to do once it is committed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._after: list[Callable[[], object]] = []

    def run(self, statement: TextClause | Any, parameters: dict[str, Any] | list[dict[str, Any]] | None = None) -> Any:
        """Execute a statement; a list of parameter sets executes it for each."""
        return self._connection.execute(statement, parameters)

    def first(self, statement: TextClause | Any, parameters: dict[str, Any] | None = None) -> Row[Any] | None:
        """Execute and return the first row, or None."""
        row: Row[Any] | None = self._connection.execute(statement, parameters).first()
        return row

    def all(self, statement: TextClause | Any, parameters: dict[str, Any] | None = None) -> list[Row[Any]]:
        """Execute and return every row."""
        return list(self._connection.execute(statement, parameters).all())

    def on_commit(self, action: Callable[[], object]) -> None:
        """Run `action` after the commit. Its failure is logged, never raised: the rows are the truth."""
        self._after.append(action)

    def committed(self) -> None:
        """Run what waited for the commit."""
        for action in self._after:
            try:
                action()
            except Exception:
                log.warning("after_commit_failed", exc_info=True)


@lru_cache(maxsize=1)
def get_engine() -> Engine:
    """The engine of this process, made on first use (never at import, never before a fork)."""
    settings = get_settings()
    engine = create_engine(
        settings.sqlalchemy_url,
        pool_size=max(settings.db_pool_size, 4),
        max_overflow=24,
        pool_recycle=1800,
        pool_timeout=10,
        connect_args={
            "connect_timeout": 3,
            "application_name": "dreamery",
            "options": "-c statement_timeout=10000 -c idle_in_transaction_session_timeout=15000 -c lock_timeout=5000",
        },
    )
    event.listen(engine, "checkout", _ping_when_idle)
    event.listen(engine, "checkin", _note_use)
    return engine


def _note_use(_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


def _ping_when_idle(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
    """SQLAlchemy's own pre-ping asks before every transaction, a fifth of a short one's cost."""
    if time.monotonic() - record.info.get("used_at", 0.0) < PING_AFTER_SECONDS:
        return
    try:
        connection.execute("SELECT 1")
        connection.rollback()
    except psycopg.Error as error:
        raise DisconnectionError from error


@contextmanager
def transaction() -> Iterator[Transaction]:
    """One transaction: commits at the end, rolls back on an exception, then runs what `on_commit` queued."""
    with get_engine().begin() as connection:
        tx = Transaction(connection)
        yield tx
    tx.committed()


# For work that is safe to repeat as a whole because every write in it is guarded.
retry_when_database_away = retry(
    retry=retry_if_exception_type((OperationalError, InterfaceError)),
    wait=wait_random_exponential(multiplier=0.1, max=2),
    stop=stop_after_delay(GUARDED_RETRY_SECONDS),
    reraise=True,
)
