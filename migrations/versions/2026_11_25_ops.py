"""Which request made a job, and its trace: for log lines and spans of the steps."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0015_ops"
down_revision: str | None = "0015_storage"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("jobs", sa.Column("origin", postgresql.JSONB()))


def downgrade() -> None:
    """Undo."""
    op.drop_column("jobs", "origin")
