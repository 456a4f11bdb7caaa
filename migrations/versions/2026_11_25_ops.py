"""Request id and trace of each job, for log lines and spans of tasks."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0015_ops"
down_revision: str | None = "0015_storage"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrade the schema."""
    op.add_column("jobs", sa.Column("origin", postgresql.JSONB()))


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_column("jobs", "origin")
