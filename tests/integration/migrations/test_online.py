"""Helpers for migrations of large tables: committed batches, and indexes that survive an interrupted attempt."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.pool import NullPool

from migrations import online
from tests.support.platform import migrate
from worker.local.embedded_servers import EmbeddedPostgres

ROWS = 11


@pytest.fixture
def url(database_url: str) -> str:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "CREATE TABLE things (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), n integer, twice integer)"
        )
        connection.execute("INSERT INTO things (n) SELECT n FROM generate_series(1, %s) n", [ROWS])
    return database_url


@contextmanager
def migration(url: str) -> Iterator[None]:
    """A transaction of a migration, as `migrations/env.py` opens it."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"transaction_per_migration": True})
        with context.begin_transaction(_per_migration=True), Operations.context(context):
            yield


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement).fetchall()


def double(url: str, rows: int) -> int:
    with migration(url):
        return online.update_in_batches("things", "twice = t.n * 2", "twice IS NULL", rows=rows)


@pytest.mark.parametrize("rows", [1, 4, ROWS, 100])
def test_each_batch_is_a_transaction_of_its_own(url: str, rows: int) -> None:
    assert double(url, rows) == ROWS
    assert query(url, "SELECT count(*) FROM things WHERE twice = n * 2") == [(ROWS,)]
    # `xmin` is the transaction that wrote a row.
    assert query(url, "SELECT count(DISTINCT xmin::text) FROM things") == [(-(-ROWS // rows),)]
    assert double(url, rows) == 0


def test_an_interrupted_update_continues_where_it_ended(url: str) -> None:
    _execute(
        url,
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF (SELECT count(*) FROM things WHERE twice IS NOT NULL) >= 8 THEN RAISE 'killed'; END IF;
               RETURN NEW; END $$;
           CREATE TRIGGER refuse BEFORE UPDATE ON things FOR EACH ROW EXECUTE FUNCTION refuse()""",
    )
    with pytest.raises(DBAPIError, match="killed"):
        double(url, 4)
    assert query(url, "SELECT count(*) FROM things WHERE twice = n * 2") == [(8,)]
    _execute(url, "DROP TRIGGER refuse ON things")
    assert double(url, 4) == ROWS - 8


def test_an_invalid_index_of_an_interrupted_attempt_is_replaced(url: str) -> None:
    _execute(url, "UPDATE things SET n = 1 WHERE n = 2")
    with pytest.raises(IntegrityError), migration(url):
        online.create_index("ix_things_n", "things", "(n)", unique=True)
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_things_n'::regclass"
    assert query(url, valid) == [(False,)]
    _execute(url, "DELETE FROM things WHERE n = 1")
    with migration(url):
        online.create_index("ix_things_n", "things", "(n)", unique=True)
    assert query(url, valid) == [(True,)]
    with migration(url):
        online.drop_index("ix_things_n")
    assert query(url, "SELECT 1 FROM pg_class WHERE relname = 'ix_things_n'") == []


def _execute(url: str, statement: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement)


def test_processes_that_migrate_together_wait_for_each_other(postgres: EmbeddedPostgres) -> None:
    """The one that waits must hold no snapshot: the other one's indexes would wait for it."""
    postgres.ensure_database("migrated_together")
    url = postgres.url("migrated_together")
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(migrate, url) for _ in range(3)]:
            done.result(timeout=300)
    invalid = query(url, "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid")
    assert invalid == []
    assert query(url, "SELECT count(*) FROM alembic_version") == [(1,)]
