"""Conversations that users continue, and the requests in them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0031_chat_threads"
down_revision: str | None = "0030_marked_results"
branch_labels: str | None = None
depends_on: str | None = None


def _time(name: str) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()"))


def _reference(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}_{target}"
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=name, ondelete="CASCADE")


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "chat_threads",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Uuid()),
        sa.Column("title", sa.Text(), nullable=False),
        _time("created_at"),
        _time("updated_at"),
        _reference("chat_threads", "user_id", "users"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chat_threads")),
    )
    op.create_index("ix_chat_threads_owner", "chat_threads", ["owner", "updated_at", "id"])
    op.create_index("ix_chat_threads_user_id", "chat_threads", ["user_id"])
    op.create_table(
        "chat_turns",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("thread_id", sa.Uuid(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("messages", postgresql.JSONB(), nullable=False),
        sa.Column("continues", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("replaced_at", sa.DateTime(timezone=True)),
        _reference("chat_turns", "job_id", "jobs"),
        _reference("chat_turns", "thread_id", "chat_threads"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_chat_turns")),
        sa.UniqueConstraint("thread_id", "n", name=op.f("uq_chat_turns_thread_id_n")),
    )


def downgrade() -> None:
    """Remove them. The jobs stay."""
    op.drop_table("chat_turns")
    op.drop_table("chat_threads")
