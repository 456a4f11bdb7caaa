"""claim

Positions in the fair queue, and data for the choice of an account.

Revision ID: 0015_claim
Revises: 0014_prices
"""

from typing import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0015_claim"
down_revision: str | Sequence[str] | None = "0015_pool"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

PLACE = "(turn - ((20)::double precision * (priority)::double precision))"
QUEUED = sa.text("state = 'queued'")


def upgrade() -> None:
    """Upgrade the schema. Waiting jobs keep their order: all get position 0, and older jobs go first."""
    op.add_column("users", sa.Column("weight", sa.Double(), nullable=False, server_default=sa.text("1")))
    op.add_column("users", sa.Column("priority", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.create_check_constraint("weight", "users", "weight > 0")
    op.add_column("accounts", sa.Column("used", sa.Double(), nullable=False, server_default=sa.text("0")))
    op.add_column("accounts", sa.Column("turns", JSONB(), nullable=False, server_default=sa.text("'{}'::jsonb")))
    op.add_column("jobs", sa.Column("turn", sa.Double(), nullable=False, server_default=sa.text("0")))
    op.add_column("jobs", sa.Column("place", sa.Double(), sa.Computed(PLACE, persisted=True), nullable=False))
    op.drop_index("ix_jobs_queue", table_name="jobs")
    op.create_index("ix_jobs_queue", "jobs", ["kind", "place", "id"], postgresql_where=QUEUED)
    op.create_index(
        "ix_jobs_turns", "jobs", ["owner", "kind", "turn"], postgresql_where=sa.text("attempt > 0 OR state = 'queued'")
    )
    op.create_table(
        "account_marks",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("good", sa.Double(), nullable=False, server_default=sa.text("0")),
        sa.Column("bad", sa.Double(), nullable=False, server_default=sa.text("0")),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name="fk_account_marks_account_id_accounts", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "model", name="pk_account_marks"),
    )


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_table("account_marks")
    op.drop_index("ix_jobs_turns", table_name="jobs")
    op.drop_index("ix_jobs_queue", table_name="jobs")
    op.create_index("ix_jobs_queue", "jobs", ["kind", sa.text("priority DESC"), "id"], postgresql_where=QUEUED)
    op.drop_column("jobs", "place")
    op.drop_column("jobs", "turn")
    op.drop_column("accounts", "turns")
    op.drop_column("accounts", "used")
    op.drop_constraint("weight", "users", type_="check")
    op.drop_column("users", "priority")
    op.drop_column("users", "weight")
