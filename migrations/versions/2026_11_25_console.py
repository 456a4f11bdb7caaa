"""Sessions of the web console, and favourite jobs."""

import sqlalchemy as sa
from alembic import op

revision: str = "0015_console"
down_revision: str | None = "0015_ops"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Upgrade the schema."""
    op.create_table(
        "console_sessions",
        sa.Column("id_hash", sa.Text(), nullable=False),
        sa.Column("api_key_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["api_key_id"], ["api_keys.id"], name=op.f("fk_console_sessions_api_key_id_api_keys"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id_hash", name=op.f("pk_console_sessions")),
    )
    op.create_index("ix_console_sessions_api_key_id", "console_sessions", ["api_key_id"])
    op.create_index("ix_console_sessions_expires_at", "console_sessions", ["expires_at"])
    op.add_column("jobs", sa.Column("favourite", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_index(
        "ix_jobs_favourite", "jobs", ["user_id", "id"], postgresql_where=sa.text("favourite")
    )


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_index("ix_jobs_favourite", table_name="jobs")
    op.drop_column("jobs", "favourite")
    op.drop_table("console_sessions")
