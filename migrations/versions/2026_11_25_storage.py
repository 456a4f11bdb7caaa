"""Retention per user, pins, two-step file removal, and platform-wide state."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0015_storage"
down_revision: str = "0015_guards"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrade the schema."""
    op.add_column("users", sa.Column("retention_days", sa.Integer()))
    op.create_check_constraint("retention_days", "users", "retention_days >= 0")
    op.add_column("jobs", sa.Column("pinned_at", sa.DateTime(timezone=True)))
    op.create_index("ix_jobs_pinned", "jobs", ["owner"], postgresql_where=sa.text("pinned_at IS NOT NULL"))
    op.add_column("files", sa.Column("erased_at", sa.DateTime(timezone=True)))
    op.execute("UPDATE files SET erased_at = removed_at WHERE removed_at IS NOT NULL")
    op.create_index("ix_files_kept", "files", ["created_at"], postgresql_where=sa.text("removed_at IS NULL"))
    op.create_index(
        "ix_files_to_erase", "files", ["id"],
        postgresql_where=sa.text("removed_at IS NOT NULL AND erased_at IS NULL"),
    )
    op.create_index("ix_files_key", "files", ["key"])
    op.create_table(
        "platform_state",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", postgresql.JSONB(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_platform_state")),
    )


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_table("platform_state")
    op.drop_index("ix_files_key", "files")
    op.drop_index("ix_files_to_erase", "files")
    op.drop_index("ix_files_kept", "files")
    op.drop_column("files", "erased_at")
    op.drop_index("ix_jobs_pinned", "jobs")
    op.drop_column("jobs", "pinned_at")
    op.drop_constraint(op.f("ck_users_retention_days"), "users")
    op.drop_column("users", "retention_days")
