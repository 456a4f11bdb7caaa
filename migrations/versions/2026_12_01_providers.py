"""Which upstream an account belongs to. Its regions are the provider's, so the database does not list them any more."""

import sqlalchemy as sa
from alembic import op

revision: str = "0020_providers"
down_revision: str | None = "0019_write_cost"
branch_labels: str | None = None
depends_on: str | None = None

_REGION = "region IN ('auto', 'cn', 'us', 'sg', 'hk', 'jp', 'sandbox')"


def upgrade() -> None:
    """Add the column; all accounts so far belong to the first provider."""
    op.add_column("accounts", sa.Column("provider", sa.Text(), nullable=False, server_default=sa.text("'dreamina'")))
    op.drop_constraint(op.f("ck_accounts_region"), "accounts", type_="check")


def downgrade() -> None:
    """Remove the column. Raises IntegrityError while there are accounts of other providers."""
    op.execute(f"ALTER TABLE accounts ADD CONSTRAINT ck_accounts_region CHECK ({_REGION}) NOT VALID")
    op.execute("ALTER TABLE accounts VALIDATE CONSTRAINT ck_accounts_region")
    op.drop_column("accounts", "provider")
