"""What accounts and jobs of several providers need: shared limits, currency, model ids, health of single models."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from migrations.online import create_index, drop_index

revision: str = "0021_second_provider"
down_revision: str | None = "0020_providers"
branch_labels: str | None = None
depends_on: str | None = None

_OLD_LINE = "hash_record_extended(ROW(owner, user_id, account_choice, account_ids, avoid_accounts, price), 0)"
_LINE = (
    "hash_record_extended(ROW(owner, user_id, account_choice, account_ids, avoid_accounts, price, providers, "
    "currency, model), 0)"
)
_OBJECTS = ("model_ids", "model_rests", "provider_facts", "prices")


def upgrade() -> None:
    """Add the columns. Jobs and accounts of older processes belong to the first provider."""
    op.add_column("accounts", sa.Column("limit_group", sa.Text()))
    op.add_column("accounts", sa.Column("currency", sa.Text()))
    for name in _OBJECTS:
        op.add_column("accounts", sa.Column(name, JSONB(), nullable=False, server_default=sa.text("'{}'::jsonb")))
    op.create_index(
        "ix_accounts_limit_group", "accounts", ["limit_group"], postgresql_where=sa.text("limit_group IS NOT NULL")
    )
    op.add_column(
        "jobs", sa.Column("providers", ARRAY(sa.Text()), nullable=False, server_default=sa.text("'{dreamina}'::text[]"))
    )
    op.add_column("jobs", sa.Column("currency", sa.Text()))
    op.add_column(
        "account_checks", sa.Column("provider", sa.Text(), nullable=False, server_default=sa.text("'dreamina'"))
    )
    create_index("ix_jobs_queue_lines", "jobs", f"(kind, ({_LINE}), place, id) WHERE state = 'queued'")
    drop_index("ix_jobs_line")


def downgrade() -> None:
    """Remove the columns."""
    create_index("ix_jobs_line", "jobs", f"(kind, ({_OLD_LINE}), place, id) WHERE state = 'queued'")
    drop_index("ix_jobs_queue_lines")
    op.drop_column("account_checks", "provider")
    op.drop_column("jobs", "currency")
    op.drop_column("jobs", "providers")
    op.drop_index("ix_accounts_limit_group", "accounts")
    for name in (*reversed(_OBJECTS), "currency", "limit_group"):
        op.drop_column("accounts", name)
