"""tokens

Proxies and model lists of accounts, and session checks without a job.

Revision ID: 0009_tokens
Revises: 0008_conversations
"""

from typing import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = '0009_tokens'
down_revision: str | None = '0008_conversations'
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Upgrade the schema."""
    op.add_column('accounts', sa.Column('proxy', sa.Text(), nullable=True))
    op.add_column('accounts', sa.Column('proxy_hash', sa.Text(), nullable=True))
    op.add_column('accounts', sa.Column('models', postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.add_column('accounts', sa.Column('models_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('accounts', sa.Column('refresh_due_at', sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        'account_checks',
        sa.Column('id', sa.Uuid(), nullable=False),
        sa.Column('owner', sa.Text(), nullable=False),
        sa.Column('what', sa.Text(), nullable=False),
        sa.Column('lookup_hash', sa.Text(), nullable=False),
        sa.Column('region', sa.Text(), nullable=False),
        sa.Column('secret', sa.Text(), nullable=False),
        sa.Column('proxy', sa.Text(), nullable=True),
        sa.Column('proxy_hash', sa.Text(), nullable=True),
        sa.Column('state', sa.Text(), server_default=sa.text("'queued'"), nullable=False),
        sa.Column('result', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column('claimed_at', sa.DateTime(timezone=True), nullable=True),
        sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("state IN ('queued', 'succeeded')", name=op.f('ck_account_checks_state')),
        sa.CheckConstraint(
            "(state = 'succeeded') = (result IS NOT NULL)", name=op.f('ck_account_checks_answered_iff_result')
        ),
        sa.CheckConstraint("what IN ('check', 'points', 'receive')", name=op.f('ck_account_checks_what')),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_account_checks')),
    )
    op.create_index('ix_account_checks_owner', 'account_checks', ['owner', 'created_at'])
    op.create_index('ix_account_checks_created_at', 'account_checks', ['created_at'])


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_table('account_checks')
    for column in ('refresh_due_at', 'models_at', 'models', 'proxy_hash', 'proxy'):
        op.drop_column('accounts', column)
