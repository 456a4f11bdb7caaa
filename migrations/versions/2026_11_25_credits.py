"""Learned prices, credit history per account, daily credits, and charges confirmed by upstream."""

import sqlalchemy as sa
from alembic import op

revision: str = "0015_credits"
down_revision: str | None = "0015_console"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrade the schema."""
    op.create_table(
        "credit_prices",
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("size", sa.Text(), nullable=False),
        sa.Column("variant", sa.Text(), nullable=False),
        sa.Column("units", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("credits", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("jobs", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.CheckConstraint("credits > 0 AND units > 0", name=op.f("ck_credit_prices_positive")),
        sa.CheckConstraint("source IN ('history')", name=op.f("ck_credit_prices_source")),
        sa.PrimaryKeyConstraint("place", "model", "size", "variant", "units", name=op.f("pk_credit_prices")),
    )
    op.create_table(
        "credit_readings",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("credits", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], ondelete="CASCADE", name=op.f("fk_credit_readings_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("account_id", "at", name=op.f("pk_credit_readings")),
    )
    op.create_index("ix_credit_readings_at", "credit_readings", ["at"])
    op.create_table(
        "credit_receives",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("how", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("gained", sa.Integer()),
        sa.Column("error_code", sa.Text()),
        sa.CheckConstraint("how IN ('daily', 'empty', 'asked')", name=op.f("ck_credit_receives_how")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], ondelete="CASCADE", name=op.f("fk_credit_receives_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("account_id", "day", name=op.f("pk_credit_receives")),
    )
    op.add_column("accounts", sa.Column("daily_receive", sa.Boolean()))
    op.add_column("accounts", sa.Column("ledger_due_at", sa.DateTime(timezone=True)))
    op.add_column("jobs", sa.Column("settled_at", sa.DateTime(timezone=True)))
    op.create_index(
        "ix_jobs_unsettled",
        "jobs",
        ["account_id", "submitted_at"],
        postgresql_where=sa.text("submitted_at IS NOT NULL AND settled_at IS NULL"),
    )
    # Jobs that ended earlier cannot be settled: their price is unknown and is not needed.
    op.execute("UPDATE jobs SET settled_at = finished_at WHERE finished_at IS NOT NULL")


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_index("ix_jobs_unsettled", table_name="jobs")
    op.drop_column("jobs", "settled_at")
    op.drop_column("accounts", "ledger_due_at")
    op.drop_column("accounts", "daily_receive")
    op.drop_table("credit_receives")
    op.drop_table("credit_readings")
    op.drop_table("credit_prices")
