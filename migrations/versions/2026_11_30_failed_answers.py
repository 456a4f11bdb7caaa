"""Failures that were sent as an answer, so that an automatic repeat gets the same failure without a job."""

import sqlalchemy as sa
from alembic import op

revision: str = "0016_failed_answers"
down_revision: str | None = "0015_budgets"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Upgrade the schema."""
    op.add_column("requests", sa.Column("failed", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("requests", sa.Column("failure_repeated_at", sa.DateTime(timezone=True)))
    op.add_column("requests", sa.Column("body_digest", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_column("requests", "body_digest")
    op.drop_column("requests", "failure_repeated_at")
    op.drop_column("requests", "failed")
