"""deleted jobs

A job that its owner deleted: nobody sees it any more, and its files go.

Revision ID: 0006_api_video
Revises: 0004_media
"""

from typing import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = '0006_api_video'
down_revision: str | None = '0004_media'
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    op.add_column('jobs', sa.Column('deleted_at', sa.DateTime(timezone=True), nullable=True))
    op.create_index('ix_jobs_deleted_at', 'jobs', ['deleted_at'], postgresql_where=sa.text('deleted_at IS NOT NULL'))


def downgrade() -> None:
    """Take back."""
    op.drop_index('ix_jobs_deleted_at', table_name='jobs', postgresql_where=sa.text('deleted_at IS NOT NULL'))
    op.drop_column('jobs', 'deleted_at')
