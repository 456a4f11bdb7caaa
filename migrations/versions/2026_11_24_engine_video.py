"""engine_video

Cooldown per kind of job: an account that may not start another video now can still generate images.

Revision ID: 0005_engine_video
Revises: 0004_media
"""

from typing import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = '0005_engine_video'
down_revision: str | None = '0004_media'
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Upgrade the schema."""
    op.add_column('accounts', sa.Column('kind_rests', JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False))


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_column('accounts', 'kind_rests')
