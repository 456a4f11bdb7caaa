"""The database engine and `transaction()`: the only access to Postgres.

Actions that need committed data (publish an event, enqueue a task) are registered with `tx.on_commit` and run after the
commit; a rollback drops them (I2).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from sqlalchemy import Connection, Engine, Row, TextClause, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import (
    DisconnectionError,
    InterfaceError,
    InvalidatePoolError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry
from tenacity import RetryCallState, retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from worker.core.concurrency.once import Once
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.connecting.connection import BoundedConnection, Connector
from worker.db.connecting.engines import answer_limit, connection_arguments
from worker.db.connecting.reachability import reachability
from worker.db.connecting.reasons import LOST_STATES, reason_for_callers, reason_for_operators

log = get_logger("db")

# `Row` is exported for tasks and api, which must not import sqlalchemy.
__all__ = [
    "DATABASE_ERRORS",
    "DATABASE_UNAVAILABLE_ERRORS",
    "Row",
    "Transaction",
    "get_engine",
    "is_database_away",
    "new_engine",
    "reason_for_callers",
    "reason_for_operators",
    "retry_for_a_caller",
    "retry_when_database_unavailable",
    "transaction",
]

# Every error that a caller of this package can get from the database.
DATABASE_ERRORS: tuple[type[Exception], ...] = (SQLAlchemyError,)
# The errors that are not about the statement: Postgres is unreachable, restarting or too busy.
DATABASE_UNAVAILABLE_ERRORS: tuple[type[Exception], ...] = (OperationalError, InterfaceError, PoolTimeoutError)

# SQLSTATE classes of a server that refuses every statement: connection, resources, operator intervention.
_AWAY_CLASSES = ("08", "53", "57")
_QUERY_CANCELED = "57014"


def is_database_away(error: Exception) -> bool:
    """Whether no statement can succeed now. A statement that waited too long, for example for a lock, is no reason."""
    if not isinstance(error, OperationalError):
        return isinstance(error, DATABASE_UNAVAILABLE_ERRORS)
    # None = there was no answer: the connection broke.
    state = getattr(error.orig, "sqlstate", None)
    return state is None or state in LOST_STATES or (state.startswith(_AWAY_CLASSES) and state != _QUERY_CANCELED)


# A restart of Postgres takes seconds; a task waits for it instead of failing. A caller gets an answer within 10 s.
RETRY_SECONDS = 15
CALLER_RETRY_SECONDS = 6
_SESSION = {
    "statement_timeout": "6000",
    "idle_in_transaction_session_timeout": "15000",
    "lock_timeout": "5000",
    "idle_session_timeout": "120000",
}
# An answer that comes later than the server's own limit and this comes never: the server or the network is gone.
_ANSWER_MARGIN_SECONDS = 1.0
# A pooled connection that was used more recently is not pinged.
PING_AFTER_SECONDS = 1.0
_PING_ANSWER_SECONDS = 2.0


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

    def end_unwritten(self) -> None:
        """Roll back, as the last call of a transaction that wrote nothing: a commit would wait for the disk.

        The actions of `on_commit` run all the same.
        """
        self._connection.rollback()

    def run_after_commit(self) -> None:
        """Run the actions that `on_commit` registered."""
        for action in self._after:
            try:
                action()
            except Exception:
                log.warning("after_commit_failed", exc_info=True)


def new_engine() -> Engine:
    """Return a further engine for the database of the settings. Processes use `get_engine`."""
    settings = get_settings()
    url = make_url(settings.sqlalchemy_url)
    reachability.forget()
    connector = Connector(_SESSION, answer_seconds=answer_limit(url, _SESSION, _ANSWER_MARGIN_SECONDS))
    engine = create_engine(
        url,
        pool_size=max(settings.db_pool_size, 4),
        max_overflow=8,
        pool_recycle=1800,
        # Connections come back within the limit of a statement, or break.
        pool_timeout=8,
        # The connections of a burst are not used afterwards, and the server closes them: each takes 5 MB there.
        pool_use_lifo=True,
        connect_args=connection_arguments(url, "dreamery"),
    )

    def connect(_dialect: object, _record: object, _args: object, parameters: dict[str, Any]) -> BoundedConnection:
        return reachability.connect(lambda: connector.open(parameters))

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "handle_error", _replace_error, retval=True)
    event.listen(engine, "checkout", _ping_when_idle)
    event.listen(engine, "checkin", _record_use)
    return engine


# The engine of this process, created on first use (never at import, never before a fork).
get_engine = Once(new_engine)


def _replace_error(context: ExceptionContext) -> Exception | None:
    """Count a session that can only fail as lost, whatever the driver calls its error: its connections are dropped."""
    error = context.original_exception
    if not isinstance(error, psycopg.Error):
        return None
    if error.sqlstate in LOST_STATES:
        context.is_disconnect = True
    if context.is_disconnect and not isinstance(context.sqlalchemy_exception, OperationalError):
        return OperationalError(context.statement, context.parameters, error, connection_invalidated=True)
    return None


def _record_use(_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


def _ping_when_idle(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Ping an idle connection before use. SQLAlchemy's own pre-ping costs every transaction a round trip."""
    if time.monotonic() - record.info.get("used_at", 0.0) < PING_AFTER_SECONDS:
        return
    bounded = cast("BoundedConnection", connection)
    usual, bounded.answer_seconds = bounded.answer_seconds, _PING_ANSWER_SECONDS
    try:
        bounded.execute("SELECT 1")
        bounded.rollback()
    except psycopg.errors.ConnectionTimeout as error:
        # The others are as old, and a ping of each would take as long.
        raise InvalidatePoolError from error
    except psycopg.Error as error:
        raise DisconnectionError from error
    bounded.answer_seconds = usual


@contextmanager
def transaction(*, plan_once: bool = False) -> Iterator[Transaction]:
    """Open a transaction. Commits at the end and runs the `on_commit` actions; rolls back on an exception.

    `plan_once` = its statements belong to the path of each job: each connection plans them once, without their values.
    Their plans must not depend on values: planning costs up to four times as much as running them.
    """
    with get_engine().connect() as connection:
        cast("BoundedConnection", connection.connection.dbapi_connection).plan_once(on=plan_once)
        with connection.begin():
            tx = Transaction(connection)
            yield tx
    tx.run_after_commit()


def _caller_waited_enough(state: RetryCallState) -> bool:
    # Counted from the beginning of the outage: later requests find the threads free.
    waited = max(state.seconds_since_start or 0.0, reachability.seconds_away)
    return reachability.is_silent or waited >= CALLER_RETRY_SECONDS


# Decorators for functions that can be repeated as a whole, because every write in them is guarded.
retry_when_database_unavailable = retry(
    retry=retry_if_exception_type((OperationalError, InterfaceError)),
    wait=wait_random_exponential(multiplier=0.1, max=2),
    stop=stop_after_delay(RETRY_SECONDS),
    reraise=True,
)
# The same while an HTTP request waits.
retry_for_a_caller = retry(
    retry=retry_if_exception_type((OperationalError, InterfaceError)),
    wait=wait_random_exponential(multiplier=0.1, max=1),
    stop=_caller_waited_enough,
    reraise=True,
)
