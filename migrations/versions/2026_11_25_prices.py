"""Expected and charged price of each job."""

import sqlalchemy as sa
from alembic import op

revision: str = "0014_prices"
down_revision: str | None = "0013_people"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrade the schema."""
    op.add_column("jobs", sa.Column("price", sa.Integer()))
    op.add_column("jobs", sa.Column("charged", sa.Integer()))


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_column("jobs", "charged")
    op.drop_column("jobs", "price")
