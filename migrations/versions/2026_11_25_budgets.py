"""Limits of users and keys, chains of rotated keys, sent budget warnings, and the index for usage reports."""

from typing import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0015_budgets"
down_revision: str | None = "0015_credits"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_OF_USAGE = ["id", "user_id", "api_key_id", "account_id", "kind", "model", "state", "attempt", "price", "charged"]


def upgrade() -> None:
    """Upgrade the schema."""
    for table in ("users", "api_keys"):
        for column in ("limits", "soft_limits"):
            op.add_column(table, sa.Column(column, JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False))
    op.add_column("api_keys", sa.Column("root_id", sa.Uuid()))
    op.create_index("ix_api_keys_root_id", "api_keys", ["root_id"], postgresql_where=sa.text("root_id IS NOT NULL"))
    op.create_index("ix_jobs_usage", "jobs", ["owner", "created_at"], postgresql_include=_OF_USAGE)
    op.create_table(
        "budget_notices",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("period", sa.DateTime(timezone=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_budget_notices_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "subject", "name", "period", name=op.f("pk_budget_notices")),
    )


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_table("budget_notices")
    op.drop_index("ix_jobs_usage", table_name="jobs")
    op.drop_index("ix_api_keys_root_id", table_name="api_keys")
    op.drop_column("api_keys", "root_id")
    for table in ("users", "api_keys"):
        for column in ("limits", "soft_limits"):
            op.drop_column(table, column)
