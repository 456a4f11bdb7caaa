"""Unit prices of jobs that run for money, and their currency in the index of budgets and usage reports."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations.online import create_index, drop_index

revision: str = "0023_money"
down_revision: str | None = "0025_lost_answers"
branch_labels: str | None = None
depends_on: str | None = None

_OLD = "id, user_id, api_key_id, account_id, kind, model, state, attempt, price, charged, result_count, result_seconds"
_UNSETTLED = "currency IS NOT NULL AND finished_at IS NOT NULL AND settled_at IS NULL"


def upgrade() -> None:
    """Add them. Jobs of older processes have no currency and need no unit prices."""
    op.add_column("jobs", sa.Column("rates", JSONB()))
    create_index("ix_jobs_usage_money", "jobs", f"(owner, created_at) INCLUDE ({_OLD}, currency)")
    drop_index("ix_jobs_usage_results")
    create_index("ix_jobs_unknown_cost", "jobs", f"(finished_at) WHERE {_UNSETTLED}")


def downgrade() -> None:
    """Remove them."""
    drop_index("ix_jobs_unknown_cost")
    create_index("ix_jobs_usage_results", "jobs", f"(owner, created_at) INCLUDE ({_OLD})")
    drop_index("ix_jobs_usage_money")
    op.drop_column("jobs", "rates")
