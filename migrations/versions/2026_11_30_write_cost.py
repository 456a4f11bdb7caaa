"""Storage parameters that halve what a change of a job or a request writes to the log of the database."""

from alembic import op

revision: str = "0019_write_cost"
down_revision: str | None = "0018_polling"
branch_labels: str | None = None
depends_on: str | None = None

# An updated row that stays on its page is logged as the difference to the old one, and a request then needs no new
# index entries either.
_FILLFACTOR = {"jobs": (70, 85), "requests": (60, 100)}  # new, old


def upgrade() -> None:
    """Leave more space on the pages; write entries of accounts at once, without a list of pending ones."""
    for table, (new, _) in _FILLFACTOR.items():
        op.execute(f"ALTER TABLE {table} SET (fillfactor = {new})")
    op.execute("ALTER INDEX ix_jobs_account_ids SET (fastupdate = off)")
    op.execute("SELECT gin_clean_pending_list('ix_jobs_account_ids')")


def downgrade() -> None:
    """Set the old parameters."""
    op.execute("ALTER INDEX ix_jobs_account_ids SET (fastupdate = on)")
    for table, (_, old) in _FILLFACTOR.items():
        op.execute(f"ALTER TABLE {table} SET (fillfactor = {old})")
