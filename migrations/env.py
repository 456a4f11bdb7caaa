"""Alembic environment: uses our settings, an advisory lock against concurrent migrations, and short lock timeouts.

Everything here works through a connection pooler in transaction mode, which has no sessions: the lock is held by a
transaction of a connection of its own, and limits are set in each transaction.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic import context
from sqlalchemy import Connection

from worker.core.settings import get_settings
from worker.db.connecting.engines import command_engine
from worker.db.schema.all_tables import metadata

# An arbitrary constant; it must be the same in all versions.
MIGRATION_LOCK = 7_140_922_001
_ASK_AGAIN_SECONDS = 0.2


# Of each transaction; what runs without one, such as CREATE INDEX CONCURRENTLY, may take as long as it needs.
_LIMITS = {"lock_timeout": "10s", "statement_timeout": "10min"}


@contextmanager
def _lock(url: str) -> Iterator[Connection]:
    """Hold the lock for the time of the block. The transaction that holds it has no snapshot while it is idle.

    An index that is created concurrently waits for all older snapshots, but not for a transaction without one.
    """
    engine = command_engine(url, limits_of_url=False)
    try:
        with engine.connect() as connection:
            # A statement that is prepared or has parameters keeps its snapshot until the next one.
            driver: Any = connection.connection.driver_connection
            driver.prepare_threshold = None
            # Asked again and again, because a statement that waits would hold a snapshot.
            while not connection.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({MIGRATION_LOCK})").scalar():
                connection.rollback()
                threading.Event().wait(_ASK_AGAIN_SECONDS)
            yield connection
    finally:
        engine.dispose()


def run_migrations() -> None:
    """Run the requested migrations on one connection, while another one holds the lock."""
    url = context.config.attributes.get("url") or get_settings().sqlalchemy_url
    engine = command_engine(url, local=_LIMITS, limits_of_url=False)
    with _lock(url) as holder, engine.connect() as connection:

        def still_locked(**_: Any) -> None:
            holder.exec_driver_sql("SELECT 1")  # raises if the transaction with the lock was cut

        context.configure(
            connection=connection,
            target_metadata=metadata,
            compare_type=True,
            compare_server_default=False,
            transaction_per_migration=True,
            on_version_apply=still_locked,
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


if context.is_offline_mode():
    raise SystemExit("offline migrations are not supported: run against the database")
run_migrations()
