"""Alembic environment: uses our settings, an advisory lock against concurrent migrations, and short lock timeouts."""

import threading

from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from worker.core.settings import get_settings
from worker.db.schema.all_tables import metadata

# An arbitrary constant; it must be the same in all versions.
MIGRATION_LOCK = 7_140_922_001
_ASK_AGAIN_SECONDS = 0.2


def run_migrations() -> None:
    """Run the requested migrations on one connection, under an advisory lock."""
    url = context.config.attributes.get("url") or get_settings().sqlalchemy_url
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 5})
    with engine.connect() as connection:
        connection.execute(text("SET lock_timeout = '10s'; SET statement_timeout = '10min'"))
        # Asked again and again, because a statement that waits would hold a snapshot, and an index that another process
        # creates concurrently waits for all snapshots.
        while not connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": MIGRATION_LOCK}):
            connection.rollback()
            threading.Event().wait(_ASK_AGAIN_SECONDS)
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=metadata,
            compare_type=True,
            compare_server_default=False,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


if context.is_offline_mode():
    raise SystemExit("offline migrations are not supported: run against the database")
run_migrations()
