"""Keys that may only use accounts of some providers."""

import sqlalchemy as sa
from alembic import op

revision: str = "0028_key_providers"
down_revision: str | None = "0027_layers"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the column; keys so far may use all."""
    op.add_column("api_keys", sa.Column("providers", sa.ARRAY(sa.Text())))


def downgrade() -> None:
    """Remove it: such keys could use all accounts then, so they are revoked."""
    op.execute("UPDATE api_keys SET revoked_at = least(revoked_at, now()) WHERE providers IS NOT NULL")
    op.drop_column("api_keys", "providers")
