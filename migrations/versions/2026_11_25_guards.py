"""Keys stored in the database, encrypted with the master key."""

import sqlalchemy as sa
from alembic import op

revision: str = "0015_guards"
down_revision: str | None = "0015_claim"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Upgrade the schema."""
    op.create_table(
        "keyring",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_keyring")),
    )


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_table("keyring")
