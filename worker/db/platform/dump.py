"""Dumps all rows in one consistent snapshot and loads them into an empty database, with COPY.

Every version of Postgres reads COPY text format, and only the driver is needed, so a backup of an embedded server can
be restored into a managed one and vice versa. The tables come from the database, not from this code: a backup is
loaded into the schema it was made with, which the migrations then upgrade.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from psycopg import sql

from worker.core.settings import Settings
from worker.db.connecting.engines import command_engine
from worker.db.engine import Transaction

VERSION_TABLE = "alembic_version"
# Tables that only running processes need.
_TRANSIENT = frozenset({"api_processes", "account_checks", "list_paces", VERSION_TABLE})
_REQUIRED_TABLES = frozenset({VERSION_TABLE, "jobs", "job_events"})


@dataclass(frozen=True, slots=True)
class TableRows:
    """A table and its columns in a fixed order."""

    name: str
    columns: list[str]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A stored file that a row refers to."""

    key: str
    bytes: int
    sha256: str | None


@contextmanager
def _connection(url: str, **options: Any) -> Iterator[sa.Connection]:
    """Open one connection without the usual statement timeouts, because a large table takes minutes."""
    address = Settings.model_construct(database_url=url).sqlalchemy_url
    engine = command_engine(address, application_name="dreamery-backup")
    try:
        with engine.connect().execution_options(**options) as connection:
            yield connection
    finally:
        engine.dispose()


def _tables(connection: sa.Connection) -> list[sa.Table]:
    """Return all tables of the schema, referenced tables first."""
    metadata = sa.MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name not in _TRANSIENT]


class Snapshot:
    """A consistent view of the database at one moment, unaffected by concurrent writes."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        row = connection.execute(
            sa.text(f"SELECT version_num, now() AS at, version() AS server FROM {VERSION_TABLE}")
        ).one()
        self.revision: str = row.version_num
        self.at: datetime = row.at
        self.server: str = row.server

    def tables(self) -> list[TableRows]:
        """Return the tables to copy, in an order in which they can be loaded."""
        return [
            TableRows(table.name, [column.name for column in table.columns if column.computed is None])
            for table in _tables(self._connection)
        ]

    def rows_of(self, table: TableRows) -> Iterator[bytes]:
        """Yield the rows of a table as COPY writes them, one line each."""
        statement = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(
            sql.SQL(", ").join(map(sql.Identifier, table.columns)), sql.Identifier(table.name)
        )
        driver: Any = self._connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for line in copy:
                yield bytes(line)

    def files(self) -> Iterator[StoredFile]:
        """Yield all stored files: results and inputs."""
        found = self._connection.execution_options(yield_per=1000).execute(
            sa.text(
                """SELECT f.key, f.bytes, f.sha256 FROM files f JOIN jobs j ON j.id = f.job_id
                   WHERE f.removed_at IS NULL AND j.deleted_at IS NULL
                   UNION ALL
                   SELECT key, max(bytes), max(sha256) FROM job_inputs
                   WHERE key IS NOT NULL AND removed_at IS NULL GROUP BY key"""
            )
        )
        for row in found:
            yield StoredFile(row.key, row.bytes or 0, row.sha256)

    def installation_id(self) -> str | None:
        """Return the id of the platform, if it has one yet."""
        statement = sa.text("SELECT value ->> 'id' AS id FROM platform_state WHERE name = 'installation'")
        row = self._connection.execute(statement).first()
        return row.id if row is not None else None


@contextmanager
def snapshot(url: str) -> Iterator[Snapshot]:
    """Open a read-only snapshot of a database. Raises SQLAlchemy errors."""
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with _connection(url, **options) as connection, connection.begin():
        yield Snapshot(connection)


# --- restore ---


@dataclass(frozen=True, slots=True)
class DatabaseContents:
    """Contents of the target database of a restore."""

    tables: list[str]
    is_dreamery: bool  # the tables are those of this platform, or there are none
    has_rows: bool
    connections: int  # connections of a running platform
    revision: str | None  # revision of the schema
    through_pooler: bool  # `connections` are those of the pooler then, whose clients may all be gone


def inspect_database(url: str) -> DatabaseContents:
    """Return the contents of a database without changing it."""
    with _connection(url) as connection:
        tables = sa.inspect(connection).get_table_names()
        connections = connection.execute(
            sa.text(
                """SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'dreamery'"""
            )
        ).scalar_one()
        has_rows = any(
            connection.execute(sa.select(sa.exists(sa.select(1).select_from(table)))).scalar_one()
            for table in _tables(connection)
            if table.name != "platform_state"
        )
        version = sa.text(f"SELECT version_num FROM {VERSION_TABLE}")
        revision = connection.execute(version).scalar() if VERSION_TABLE in tables else None
        driver: Any = connection.connection.driver_connection
    return DatabaseContents(
        tables,
        is_dreamery=set(tables) >= _REQUIRED_TABLES or not tables,
        has_rows=has_rows,
        connections=connections,
        revision=revision,
        through_pooler=driver.through_pooler,
    )


def drop_all(url: str) -> None:
    """Drop all tables and functions of the schema. Only for a database of this platform."""
    with _connection(url) as connection, connection.begin():
        for name in sa.inspect(connection).get_table_names():
            connection.exec_driver_sql(f'DROP TABLE IF EXISTS "{name}" CASCADE')
        functions = connection.execute(
            sa.text(
                """SELECT p.oid::regprocedure::text AS name FROM pg_proc p
                   WHERE p.pronamespace = current_schema()::regnamespace AND p.prokind = 'f'
                     AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')"""
            )
        )
        for row in functions.all():
            connection.exec_driver_sql(f"DROP FUNCTION {row.name} CASCADE")


class Loader:
    """Fills an empty schema in one transaction: all or nothing."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self.tx = Transaction(connection)

    def truncate(self) -> None:
        """Delete the rows that migrations and the first start inserted."""
        names = ", ".join(f'"{table.name}"' for table in _tables(self._connection))
        self._connection.exec_driver_sql(f"TRUNCATE {names} CASCADE")

    def load(self, table: TableRows, rows: Iterable[bytes]) -> None:
        """Load a table from the output of `Snapshot.rows_of`, in chunks of any size."""
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
            sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, table.columns))
        )
        driver: Any = self._connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for chunk in rows:
                copy.write(chunk)

    def reset_sequences(self) -> None:
        """Set each sequence to the highest value of its column."""
        set_value = """SELECT setval(s.name, greatest((SELECT max("{column}") FROM "{table}"), 1))
                    FROM (SELECT pg_get_serial_sequence(:table, :column) AS name) s WHERE s.name IS NOT NULL"""
        for table in _tables(self._connection):
            for column in (column.name for column in table.columns if isinstance(column.type, sa.Integer)):
                statement = sa.text(set_value.format(column=column, table=table.name))
                self._connection.execute(statement, {"table": f'"{table.name}"', "column": column})


@contextmanager
def open_loader(url: str) -> Iterator[Loader]:
    """Open a loader for a database with the schema of the backup. An exception leaves it empty."""
    with _connection(url) as connection, connection.begin():
        yield Loader(connection)
