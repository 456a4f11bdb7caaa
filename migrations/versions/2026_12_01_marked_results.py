"""Single results: favourites, pins and deletion by their owner."""

import sqlalchemy as sa
from alembic import op

from migrations.online import create_index, drop_index

revision: str = "0030_marked_results"
down_revision: str | None = "0029_albums"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the columns. Results so far are marked as their job is, so no row changes."""
    op.add_column("files", sa.Column("deleted_at", sa.DateTime(timezone=True)))
    op.add_column("files", sa.Column("favourite", sa.Boolean()))
    op.add_column("files", sa.Column("pinned", sa.Boolean()))
    op.add_column("jobs", sa.Column("edited_at", sa.DateTime(timezone=True)))
    create_index("ix_jobs_edited_at", "jobs", "(edited_at) WHERE edited_at IS NOT NULL")


def downgrade() -> None:
    """Remove them: a job with a favourite or pinned result stays one as a whole, a deleted result has expired."""
    drop_index("ix_jobs_edited_at")
    op.drop_column("jobs", "edited_at")
    op.drop_column("files", "pinned")
    op.drop_column("files", "favourite")
    op.drop_column("files", "deleted_at")
