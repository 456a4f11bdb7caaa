"""Doubts about charges, hints of callbacks, the pace of lists, and last frames of videos as files."""

import sqlalchemy as sa
from alembic import op

from migrations.online import create_index, drop_index

revision: str = "0025_lost_answers"
down_revision: str | None = "0021_second_provider"
branch_labels: str | None = None
depends_on: str | None = None

_OLD, _NEW = ("original", "thumbnail", "spritesheet"), ("original", "thumbnail", "spritesheet", "last_frame")


def upgrade() -> None:
    """Add what look-ups of lost answers need."""
    op.add_column("jobs", sa.Column("upstream_hint", sa.Text()))
    op.add_column("jobs", sa.Column("charge_doubt", sa.Text()))
    op.create_table(
        "list_paces",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
    )
    _set_variants(_NEW)
    create_index("ix_jobs_charge_doubt", "jobs", "(id) WHERE charge_doubt IS NOT NULL")


def downgrade() -> None:
    """Remove it. Raises IntegrityError while there are files of last frames."""
    drop_index("ix_jobs_charge_doubt")
    _set_variants(_OLD)
    op.drop_table("list_paces")
    op.drop_column("jobs", "charge_doubt")
    op.drop_column("jobs", "upstream_hint")


def _set_variants(variants: tuple[str, ...]) -> None:
    names = ", ".join(f"'{variant}'" for variant in variants)
    op.drop_constraint(op.f("ck_files_variant"), "files", type_="check")
    op.execute(f"ALTER TABLE files ADD CONSTRAINT ck_files_variant CHECK (variant IN ({names})) NOT VALID")
    op.execute("ALTER TABLE files VALIDATE CONSTRAINT ck_files_variant")
