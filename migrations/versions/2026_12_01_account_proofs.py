"""Steps of the proof of an upstream with an account: run by a worker like checks of accounts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0024_account_proofs"
down_revision: str | None = "0026_sign_in"
branch_labels: str | None = None
depends_on: str | None = None

_OLD = "what IN ('check', 'points', 'receive', 'checkup')"
_NEW = "what IN ('check', 'points', 'receive', 'checkup', 'prove')"


def upgrade() -> None:
    """Add the parameters of a step, and its kind of check."""
    op.add_column("account_checks", sa.Column("params", JSONB()))
    _set_kinds(_NEW)


def downgrade() -> None:
    """Remove them, with the steps that are still there."""
    op.execute("DELETE FROM account_checks WHERE what = 'prove'")
    _set_kinds(_OLD)
    op.drop_column("account_checks", "params")


def _set_kinds(condition: str) -> None:
    op.drop_constraint(op.f("ck_account_checks_what"), "account_checks", type_="check")
    op.execute(f"ALTER TABLE account_checks ADD CONSTRAINT ck_account_checks_what CHECK ({condition}) NOT VALID")
    op.execute("ALTER TABLE account_checks VALIDATE CONSTRAINT ck_account_checks_what")
