"""Batches and their files, jobs that are held before the queue, and accounts of keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from migrations.online import create_index, drop_index

revision: str = "0032_batches"
down_revision: str | None = "0031_chat_threads"
branch_labels: str | None = None
depends_on: str | None = None

_OLD_STATES = "state IN ('queued', 'submitting', 'running', 'saving', 'succeeded', 'failed', 'cancelled')"
_STATES = "state IN ('held', 'queued', 'submitting', 'running', 'saving', 'succeeded', 'failed', 'cancelled')"
_BATCH_STATES = (
    "state IN ('validating', 'failed', 'in_progress', 'finalizing', 'completed', 'expired', 'cancelling', 'cancelled')"
)
_TIMES = (
    *("not_before", "paused_at", "in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at"),
    *("cancelling_at", "cancelled_at", "lease_until"),
)
_ANY_ENDPOINT = "coalesce(endpoint_id, '00000000-0000-0000-0000-000000000000'::uuid)"


def _moment(name: str, *, nullable: bool = True, now: bool = False) -> "sa.Column[sa.DateTime]":
    default = sa.text("now()") if now else None
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=default)


def _set_states(condition: str) -> None:
    """Replace the check of the states. Its validation reads the jobs while others change them."""
    op.drop_constraint(op.f("ck_jobs_state"), "jobs", type_="check")
    op.execute(f"ALTER TABLE jobs ADD CONSTRAINT ck_jobs_state CHECK ({condition}) NOT VALID")
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE jobs VALIDATE CONSTRAINT ck_jobs_state")


def _set_deliveries(condition: str) -> None:
    op.drop_constraint(op.f("ck_webhook_deliveries_of_job_or_endpoint"), "webhook_deliveries", type_="check")
    op.create_check_constraint(op.f("ck_webhook_deliveries_of_job_or_endpoint"), "webhook_deliveries", condition)


def _create_files() -> None:
    op.create_table(
        "batch_files",
        sa.Column("id", sa.Uuid(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("owner", "purpose", "name", "key", "mime", "sha256")),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("api_key_id", sa.Uuid()),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        _moment("created_at", nullable=False, now=True),
        *(_moment(name) for name in ("expires_at", "removed_at", "erased_at")),
        sa.CheckConstraint("purpose IN ('batch', 'batch_output')", name=op.f("ck_batch_files_purpose")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_batch_files_user_id_users", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["api_key_id"], ["api_keys.id"], name="fk_batch_files_api_key_id_api_keys", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch_files")),
        sa.UniqueConstraint("key", name=op.f("uq_batch_files_key")),
    )
    op.create_index(op.f("ix_batch_files_user_id"), "batch_files", ["user_id"])
    op.create_index(op.f("ix_batch_files_api_key_id"), "batch_files", ["api_key_id"])
    for name, columns, where in (
        ("ix_batch_files_owner", ["owner", "id"], "removed_at IS NULL"),
        ("ix_batch_files_expires_at", ["expires_at"], "expires_at IS NOT NULL AND removed_at IS NULL"),
        ("ix_batch_files_to_erase", ["id"], "removed_at IS NOT NULL AND erased_at IS NULL"),
    ):
        op.create_index(name, "batch_files", columns, postgresql_where=sa.text(where))


def _create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Uuid(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("owner", "endpoint", "digest")),
        sa.Column("state", sa.Text(), nullable=False, server_default=sa.text("'validating'")),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("input_file_id", sa.Uuid(), nullable=False),
        *(sa.Column(name, sa.Uuid()) for name in ("api_key_id", "output_file_id", "error_file_id", "holder")),
        sa.Column("options", JSONB(), nullable=False),
        sa.Column("metadata", JSONB(), nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("errors", JSONB()),
        sa.Column("price", JSONB()),
        *(
            sa.Column(name, sa.Integer(), nullable=False, server_default=sa.text("0"))
            for name in ("lines", "checked", "completed", "failed", "tries")
        ),
        sa.Column("idle", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        _moment("expires_at", nullable=False),
        _moment("created_at", nullable=False, now=True),
        *(_moment(name) for name in _TIMES),
        sa.CheckConstraint(_BATCH_STATES, name=op.f("ck_batches_state")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_batches_user_id_users", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["api_key_id"], ["api_keys.id"], name="fk_batches_api_key_id_api_keys", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
    )
    for column in ("user_id", "api_key_id"):
        op.create_index(f"ix_batches_{column}", "batches", [column])
    op.create_index("ix_batches_owner", "batches", ["owner", "id"])
    op.create_index(
        "uq_batches_idempotency_key",
        "batches",
        ["api_key_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    is_open = "state IN ('validating', 'in_progress', 'finalizing', 'cancelling')"
    op.create_index("ix_batches_open", "batches", ["state", "id"], postgresql_where=sa.text(is_open))
    op.create_table(
        "batch_lines",
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("n", "results")),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("custom_id", "url")),
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name="fk_batch_lines_batch_id_batches", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("batch_id", "n", name=op.f("pk_batch_lines")),
    )
    op.create_index("ix_batch_lines_group_id", "batch_lines", ["group_id"])


def upgrade() -> None:
    """Add them. Processes of older versions hold no jobs and do not look at those that are held."""
    _create_files()
    _create_batches()
    op.add_column("jobs", sa.Column("batch_id", sa.Uuid()))
    op.add_column("jobs", sa.Column("hold", sa.Text()))
    op.add_column("jobs", sa.Column("lane", sa.Text()))
    op.add_column("jobs", _moment("expires_at"))
    op.add_column("api_keys", sa.Column("accounts", ARRAY(sa.Uuid())))
    op.add_column("api_keys", sa.Column("account_groups", ARRAY(sa.Text())))
    op.add_column("webhook_deliveries", sa.Column("batch_id", sa.Uuid()))
    op.create_foreign_key(
        "fk_webhook_deliveries_batch_id_batches",
        "webhook_deliveries",
        "batches",
        ["batch_id"],
        ["id"],
        ondelete="CASCADE",
    )
    _set_deliveries("job_id IS NOT NULL OR endpoint_id IS NOT NULL OR batch_id IS NOT NULL")
    create_index(
        "uq_webhook_deliveries_batch",
        "webhook_deliveries",
        f"(batch_id, ({_ANY_ENDPOINT}), event) WHERE batch_id IS NOT NULL",
        unique=True,
    )
    _set_states(_STATES)
    create_index("ix_jobs_held", "jobs", "(owner, hold, due_at, id) WHERE state = 'held'")
    create_index("ix_jobs_held_deadline", "jobs", "(deadline_at) WHERE state = 'held'")
    create_index("ix_jobs_batch_id", "jobs", "(batch_id, state, id) WHERE batch_id IS NOT NULL")


def downgrade() -> None:
    """Remove them. Held jobs wait in the queue from then on."""
    op.execute("UPDATE jobs SET state = 'queued' WHERE state = 'held'")
    for name in ("ix_jobs_held", "ix_jobs_held_deadline", "ix_jobs_batch_id"):
        drop_index(name)
    _set_states(_OLD_STATES)
    op.execute("DELETE FROM webhook_deliveries WHERE batch_id IS NOT NULL")
    _set_deliveries("job_id IS NOT NULL OR endpoint_id IS NOT NULL")
    drop_index("uq_webhook_deliveries_batch")
    op.drop_constraint("fk_webhook_deliveries_batch_id_batches", "webhook_deliveries", type_="foreignkey")
    op.drop_column("webhook_deliveries", "batch_id")
    for name in ("account_groups", "accounts"):
        op.drop_column("api_keys", name)
    for name in ("expires_at", "lane", "hold", "batch_id"):
        op.drop_column("jobs", name)
    for table in ("batch_lines", "batches", "batch_files"):
        op.drop_table(table)
