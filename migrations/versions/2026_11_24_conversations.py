"""conversations

Text of the agent so far, for clients that missed part of the stream.

Revision ID: 0008_conversations
Revises: 0005_engine_video
"""

from typing import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = '0008_conversations'
down_revision: str | None = '0005_engine_video'
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Upgrade the schema."""
    op.create_table(
        'conversations',
        sa.Column('job_id', sa.Uuid(), nullable=False),
        sa.Column('attempt', sa.Integer(), nullable=False),
        sa.Column('sent_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
        sa.Column('said', sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column('calls', sa.Integer(), server_default=sa.text('0'), nullable=False),
        sa.Column('finish', sa.Text(), nullable=True),
        sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
        sa.CheckConstraint("finish IN ('stop', 'length')", name=op.f('ck_conversations_finish')),
        sa.ForeignKeyConstraint(
            ['job_id'], ['jobs.id'], name=op.f('fk_conversations_job_id_jobs'), ondelete='CASCADE'
        ),
        sa.PrimaryKeyConstraint('job_id', name=op.f('pk_conversations')),
    )


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_table('conversations')
