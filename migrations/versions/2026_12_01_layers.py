"""Files: what a layer of a picture shows and where."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0027_layers"
down_revision: str | None = "0024_account_proofs"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the column. Older rows and other results have none."""
    op.add_column("files", sa.Column("layer", postgresql.JSONB()))


def downgrade() -> None:
    """Remove the column."""
    op.drop_column("files", "layer")
