"""A connection to Postgres whose every wait is bounded, and which also works through a connection pooler.

A pooler in transaction mode, such as PgBouncer, gives each transaction another session of the server. So behind one,
settings are made at the start of each transaction, in the message that begins it, and no statement is prepared by name.
"""

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg
from psycopg import errors, generators, pq, sql
from psycopg.abc import PQGen

_T = TypeVar("_T")

# Also the time after which psycopg looks for signals.
_INTERVAL_SECONDS = 0.1
# `-c name=value`, `-cname=value` and `--name=value`; a backslash escapes a space.
_OPTION = re.compile(r"(?:-c\s*|--)([\w.-]+)=((?:\\.|[^\s\\])*)")
# They concern the time between transactions, in which the session belongs to nobody.
_NEVER_LOCAL = {"idle_session_timeout"}
# A statement is prepared when it has run this often on a connection; 5 is the default of psycopg.
_USUAL_THRESHOLD, _REPEATED_THRESHOLD = 5, 1
_PLAN_ONCE = b"; SET LOCAL plan_cache_mode TO force_generic_plan"
_OPTIONS_REFUSED = re.compile("unsupported startup parameter.*: options")


def parse_options(options: str) -> dict[str, str]:
    """Return the settings of an `options` string of libpq by name; a later one wins."""
    found = _OPTION.findall(options)
    return {name.replace("-", "_").lower(): re.sub(r"\\(.)", r"\1", value) for name, value in found}


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that breaks when the server does not answer in time, rather than waiting for it without end."""

    answer_seconds: float | None = None  # None = no limit of our own
    local_settings: bytes = b""  # `; SET LOCAL ...` for each transaction
    through_pooler = False
    _plans_once = False

    def plan_once(self, *, on: bool) -> None:
        """Let the statements of the next transactions be prepared soon, and planned without their values.

        A plan then costs nothing. Behind a pooler, where nothing is prepared, this does nothing.
        """
        self._plans_once = on and not self.through_pooler
        if not self.through_pooler:
            self.prepare_threshold = _REPEATED_THRESHOLD if on else _USUAL_THRESHOLD

    def wait(self, gen: PQGen[_T], interval: float = _INTERVAL_SECONDS, timeout: float | None = None) -> _T:
        """Wait for the server. Raises OperationalError, and closes the connection, after `answer_seconds`."""
        limit = self.answer_seconds if timeout is None else timeout
        try:
            return super().wait(gen, interval, limit)
        except errors._WaitTimeout:  # noqa: SLF001 - it has no public name
            if timeout is not None:
                raise
            # What it answers later would belong to another statement.
            self.pgconn.finish()
            hint = ", or the pooler has no free connection" if self.through_pooler else ""
            raise errors.ConnectionTimeout(f"no answer from the server within {limit:.0f} s{hint}") from None

    def _start_query(self) -> PQGen[None]:
        settings = self.local_settings + (_PLAN_ONCE if self._plans_once else b"")
        if not settings or self._autocommit or self.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            yield from super()._start_query()
            return
        # One message, so that a transaction costs no further round trip.
        self._check_connection_ok()
        self.pgconn.send_query(self._get_tx_start_command() + settings)
        for result in (yield from generators.execute(self.pgconn)):
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise errors.error_from_result(result)

    def _rollback_gen(self) -> PQGen[None]:
        """Roll back, and keep the prepared statements if no statement failed.

        psycopg prepares all of them again after any rollback, because a rolled back transaction may have created or
        dropped tables. Ours never do. After an error it does so too: a migration may have changed a table.
        """
        if self.pgconn.transaction_status != pq.TransactionStatus.INTRANS or self._num_transactions or self._tpc:
            yield from super()._rollback_gen()
        else:
            yield from self._exec_command(b"ROLLBACK")


@dataclass(slots=True)
class Connector:
    """Opens the connections of one engine.

    `session` are settings of each session, `local` those of each transaction, by name. `answer_seconds` limits the wait
    for each answer; None = no limit. The `options` of the URL win over `session` unless `session_wins`.
    """

    session: Mapping[str, str]
    local: Mapping[str, str] = field(default_factory=dict)
    answer_seconds: float | None = None
    session_wins: bool = False
    # PgBouncer refuses `options` unless it is set to ignore it.
    _sends_options: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, parameters: Mapping[str, Any]) -> BoundedConnection:
        """Connect. `parameters` are those of libpq."""
        parameters = dict(parameters)
        order = [_as_options(self.session), str(parameters.pop("options", ""))]  # the last one wins
        options = " ".join(order[::-1] if self.session_wins else order).strip()
        connection = self._connect(parameters, options)
        try:
            self._prepare(connection, parse_options(options))
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, parameters: dict[str, Any], options: str) -> BoundedConnection:
        if self._sends_options and options:
            try:
                return BoundedConnection.connect(**parameters, options=options)
            except psycopg.OperationalError as error:
                if not _OPTIONS_REFUSED.search(str(error)):
                    raise
                with self._lock:
                    self._sends_options = False
        return BoundedConnection.connect(**parameters)

    def _prepare(self, connection: BoundedConnection, session: dict[str, str]) -> None:
        connection.answer_seconds = self.answer_seconds
        connection.through_pooler = is_through_pooler(connection)
        local = dict(self.local)
        if connection.through_pooler:
            connection.prepare_threshold = None
            local = {name: value for name, value in session.items() if name not in _NEVER_LOCAL} | local
        connection.local_settings = b"".join(
            sql.SQL("; SET LOCAL {} TO {}").format(_name(name), sql.Literal(value)).as_bytes(connection)
            for name, value in local.items()
        )


def is_through_pooler(connection: psycopg.Connection[Any]) -> bool:
    """Return whether something stands between us and the server: then it names another process than the server does."""
    before, connection.autocommit = connection.autocommit, True
    row = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    connection.autocommit = before
    return row is None or row[0] != connection.info.backend_pid


def _as_options(settings: Mapping[str, str]) -> str:
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def _name(name: str) -> sql.Composed:
    return sql.SQL(".").join(map(sql.Identifier, name.split(".")))
