"""inputs

Revision ID: 0002_inputs
Revises: 0001_foundation
"""

from typing import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = '0002_inputs'
down_revision: str | None = '0001_foundation'
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Upgrade the schema."""
    op.create_table('job_inputs',
    sa.Column('job_id', sa.Uuid(), nullable=False),
    sa.Column('n', sa.Integer(), nullable=False),
    sa.Column('url', sa.Text(), nullable=True),
    sa.Column('key', sa.Text(), nullable=True),
    sa.Column('mime', sa.Text(), nullable=True),
    sa.Column('bytes', sa.BigInteger(), nullable=True),
    sa.Column('width', sa.Integer(), nullable=True),
    sa.Column('height', sa.Integer(), nullable=True),
    sa.Column('sha256', sa.Text(), nullable=True),
    sa.Column('removed_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint('url IS NOT NULL OR key IS NOT NULL', name=op.f('ck_job_inputs_link_or_bytes')),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_job_inputs_job_id_jobs'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('job_id', 'n', name=op.f('pk_job_inputs'))
    )
    op.create_index('ix_job_inputs_key', 'job_inputs', ['key'], unique=False, postgresql_where=sa.text('key IS NOT NULL AND removed_at IS NULL'))
    op.create_table('input_uploads',
    sa.Column('job_id', sa.Uuid(), nullable=False),
    sa.Column('n', sa.Integer(), nullable=False),
    sa.Column('account_id', sa.Uuid(), nullable=False),
    sa.Column('uri', sa.Text(), nullable=False),
    sa.Column('width', sa.Integer(), nullable=False),
    sa.Column('height', sa.Integer(), nullable=False),
    sa.Column('format', sa.Text(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['accounts.id'], name=op.f('fk_input_uploads_account_id_accounts'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['job_id', 'n'], ['job_inputs.job_id', 'job_inputs.n'], name='fk_input_uploads_input', ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('job_id', 'n', 'account_id', name=op.f('pk_input_uploads'))
    )


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_table('input_uploads')
    op.drop_index('ix_job_inputs_key', table_name='job_inputs', postgresql_where=sa.text('key IS NOT NULL AND removed_at IS NULL'))
    op.drop_table('job_inputs')
