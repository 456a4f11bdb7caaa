"""Polling limits per account, and how long upstream took for each job."""

import sqlalchemy as sa
from alembic import op

revision: str = "0018_polling"
down_revision: str | None = "0017_growth"
branch_labels: str | None = None
depends_on: str | None = None

_COLUMNS = ("poll_min_seconds", "poll_max_seconds", "poll_eagerness")


def upgrade() -> None:
    """Add the columns; NULL = as the settings say."""
    for name in _COLUMNS:
        op.add_column("accounts", sa.Column(name, sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("generation_seconds", sa.Double(), nullable=True))


def downgrade() -> None:
    """Remove the columns."""
    op.drop_column("jobs", "generation_seconds")
    for name in _COLUMNS:
        op.drop_column("accounts", name)
