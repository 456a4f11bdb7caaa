"""Accounts of the platform, of groups and of users; their states, working hours, daily caps and checks."""

import sqlalchemy as sa
from alembic import op

revision: str = "0015_pool"
down_revision: str | None = "0014_prices"
branch_labels = None
depends_on = None

_NONE = sa.text("'{}'::text[]")


def _new() -> list[sa.Column[object]]:
    # New objects on each call: a column cannot be added to a second table.
    return [
        sa.Column("proxy_place", sa.Text()),
        sa.Column("user_id", sa.Uuid()),
        sa.Column("groups", sa.ARRAY(sa.Text()), nullable=False, server_default=_NONE),
        sa.Column("state_code", sa.Text()),
        sa.Column("state_at", sa.DateTime(timezone=True)),
        sa.Column("login_refusals", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("risk_refusals", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("max_jobs_per_day", sa.Integer()),
        sa.Column("hours_days", sa.ARRAY(sa.Integer())),
        sa.Column("hours_from", sa.Time()),
        sa.Column("hours_to", sa.Time()),
        sa.Column("hours_zone", sa.Text()),
        sa.Column("checked_at", sa.DateTime(timezone=True)),
        sa.Column("check_code", sa.Text()),
    ]


def upgrade() -> None:
    """Upgrade the schema."""
    op.add_column("users", sa.Column("groups", sa.ARRAY(sa.Text()), nullable=False, server_default=_NONE))
    for column in _new():
        op.add_column("accounts", column)
    op.create_foreign_key(
        op.f("fk_accounts_user_id_users"), "accounts", "users", ["user_id"], ["id"], ondelete="RESTRICT"
    )
    op.create_index("ix_accounts_user_id", "accounts", ["user_id"], postgresql_where=sa.text("user_id IS NOT NULL"))
    op.create_index("ix_accounts_pool", "accounts", ["id"], postgresql_where=sa.text("pool"))
    op.drop_constraint(op.f("ck_accounts_state"), "accounts")
    op.create_check_constraint(
        op.f("ck_accounts_state"), "accounts", "state IN ('ok', 'paused', 'needs_login', 'blocked', 'retired')"
    )
    op.create_check_constraint(op.f("ck_accounts_one_owner"), "accounts", "NOT pool OR user_id IS NULL")
    op.create_check_constraint(
        op.f("ck_accounts_hours_whole"), "accounts", "num_nulls(hours_days, hours_from, hours_to, hours_zone) IN (0, 4)"
    )
    op.add_column("jobs", sa.Column("account_choice", sa.Text(), nullable=False, server_default=sa.text("'any'")))
    op.create_check_constraint(op.f("ck_jobs_account_choice"), "jobs", "account_choice IN ('any', 'own', 'pool')")
    _jobs_by_account(["account_id", "submitted_at"])
    _questions("'check', 'points', 'receive', 'checkup'")


def downgrade() -> None:
    """Undo the upgrade. States unknown to the old version become `paused`; users' own accounts are retired."""
    op.execute("DELETE FROM account_checks WHERE what = 'checkup'")
    _questions("'check', 'points', 'receive'")
    _jobs_by_account(["account_id"])
    op.drop_constraint(op.f("ck_jobs_account_choice"), "jobs")
    op.drop_column("jobs", "account_choice")
    op.execute("UPDATE accounts SET state = 'retired' WHERE user_id IS NOT NULL")
    op.execute("UPDATE accounts SET state = 'paused' WHERE state IN ('needs_login', 'blocked')")
    op.drop_constraint(op.f("ck_accounts_hours_whole"), "accounts")
    op.drop_constraint(op.f("ck_accounts_one_owner"), "accounts")
    op.drop_constraint(op.f("ck_accounts_state"), "accounts")
    op.create_check_constraint(op.f("ck_accounts_state"), "accounts", "state IN ('ok', 'paused', 'retired')")
    op.drop_index("ix_accounts_pool", "accounts")
    op.drop_index("ix_accounts_user_id", "accounts")
    for column in reversed(_new()):
        op.drop_column("accounts", column.name)
    op.drop_column("users", "groups")


def _jobs_by_account(columns: list[str]) -> None:
    op.drop_index("ix_jobs_account_id", "jobs")
    op.create_index("ix_jobs_account_id", "jobs", columns, postgresql_where=sa.text("account_id IS NOT NULL"))


def _questions(kinds: str) -> None:
    op.drop_constraint(op.f("ck_account_checks_what"), "account_checks")
    op.create_check_constraint(op.f("ck_account_checks_what"), "account_checks", f"what IN ({kinds})")
