"""Helpers for migrations of large tables: nothing here blocks readers or writers for longer than a moment.

A change of a table with a million rows must not run as one statement inside the transaction of its migration: it would
hold its locks for minutes and leave every row behind twice.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op

BATCH_ROWS = 5000


@contextmanager
def _without_limits() -> Iterator[None]:
    """Leave the transaction of the migration. Statements commit one by one and may take long, as they block nobody."""
    with op.get_context().autocommit_block():
        yield  # the limits belong to transactions, see `env.py`


def create_index(name: str, table: str, definition: str, *, unique: bool = False) -> None:
    """Create an index while others write. An invalid one that an interrupted attempt has left is replaced.

    `definition` is what follows `ON table`, for example `(owner, id) WHERE state = 'queued'`.
    """
    with _without_limits():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute(f"CREATE {'UNIQUE ' if unique else ''}INDEX CONCURRENTLY {name} ON {table} {definition}")


def drop_index(name: str) -> None:
    """Drop an index while others use the table."""
    with _without_limits():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def update_in_batches(table: str, sets: str, where: str, *, key: str = "id", rows: int = BATCH_ROWS) -> int:
    """Update the rows that meet a condition, `rows` per transaction in the order of their key; return how many.

    Rows are locked for one batch only. The condition must not be true any more after the update, so that an interrupted
    run continues where it ended. Old processes may still insert rows during the run: their rows need a default.
    """
    done = 0
    statement = sa.text(
        f"""WITH batch AS (
                SELECT {key} FROM {table}
                WHERE ({where}) AND (CAST(:after AS text) IS NULL OR {key} > CAST(:after AS uuid))
                ORDER BY {key} LIMIT :rows FOR NO KEY UPDATE),
            changed AS (UPDATE {table} t SET {sets} FROM batch WHERE t.{key} = batch.{key} RETURNING t.{key})
            SELECT count(*), max({key}::text) FROM changed"""  # noqa: S608 - names of the migration
    )
    after: str | None = None
    with _without_limits():
        while True:
            count, last = op.get_bind().execute(statement, {"after": after, "rows": rows}).one()
            done += count
            after = last
            if count < rows:
                return done
