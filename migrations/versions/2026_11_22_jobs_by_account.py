"""jobs by account

Revision ID: 0003_jobs_by_account
Revises: 0002_inputs
"""

from typing import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = '0003_jobs_by_account'
down_revision: str | None = '0002_inputs'
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Upgrade the schema."""
    op.create_index(
        'ix_jobs_account_id', 'jobs', ['account_id'], postgresql_where=sa.text('account_id IS NOT NULL')
    )


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_index('ix_jobs_account_id', table_name='jobs', postgresql_where=sa.text('account_id IS NOT NULL'))
