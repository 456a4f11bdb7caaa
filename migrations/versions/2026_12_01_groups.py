"""The index of groups holds only the jobs after the first of a request: most requests have one."""

from migrations.online import create_index, drop_index

revision: str = "0034_groups"
down_revision: str | None = "0033_monitoring"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Replace the index. Old processes that still run find the jobs of a request slowly until they end."""
    create_index("ix_jobs_later_in_group", "jobs", "(group_id) WHERE group_id <> id")
    drop_index("ix_jobs_group_id")


def downgrade() -> None:
    """Index all jobs again."""
    create_index("ix_jobs_group_id", "jobs", "(group_id)")
    drop_index("ix_jobs_later_in_group")
