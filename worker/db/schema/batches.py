"""Tables of batches: uploaded and written JSONL files, the batches, and their lines."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from worker.db.schema.base import metadata, timestamp_column

# Files of `/v1/files`: what callers upload for batches, and the results and errors that batches write.
batch_files = Table(
    "batch_files",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("api_key_id", Uuid, ForeignKey("api_keys.id", ondelete="SET NULL"), index=True),
    Column("purpose", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("key", Text, nullable=False, unique=True),
    Column("mime", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    timestamp_column("created_at", nullable=False, default=True),
    timestamp_column("expires_at"),
    timestamp_column("removed_at"),  # from then on it cannot be read
    timestamp_column("erased_at"),  # its bytes were deleted
    CheckConstraint("purpose IN ('batch', 'batch_output')", name="purpose"),
    Index("ix_batch_files_owner", "owner", "id", postgresql_where=text("removed_at IS NULL")),
    Index(
        "ix_batch_files_expires_at",
        "expires_at",
        postgresql_where=text("expires_at IS NOT NULL AND removed_at IS NULL"),
    ),
    Index("ix_batch_files_to_erase", "id", postgresql_where=text("removed_at IS NOT NULL AND erased_at IS NULL")),
)


batches = Table(
    "batches",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("api_key_id", Uuid, ForeignKey("api_keys.id", ondelete="SET NULL"), index=True),
    Column("endpoint", Text, nullable=False),  # a path, or `*` = each line its own
    Column("state", Text, nullable=False, server_default=text("'validating'")),
    Column("input_file_id", Uuid, nullable=False),
    Column("output_file_id", Uuid),
    Column("error_file_id", Uuid),
    # What the request asked for: completion_window, webhook, max_cost, accounts, base of links, ... (`BatchOptions`).
    Column("options", JSONB, nullable=False),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("idempotency_key", Text),
    Column("digest", Text, nullable=False),  # of the request, for repeats with the same key
    Column("errors", JSONB),  # why it was refused: `data` and `total`
    Column("price", JSONB),  # requests, jobs, credits, money, models; set when it is accepted or refused for its price
    Column("lines", Integer, nullable=False, server_default=text("0")),
    Column("checked", Integer, nullable=False, server_default=text("0")),  # lines that the validation has read
    Column("completed", Integer, nullable=False, server_default=text("0")),  # final counts, set when it ends
    Column("failed", Integer, nullable=False, server_default=text("0")),
    Column("idle", Boolean, nullable=False, server_default=text("false")),  # runs only while accounts are idle
    Column("tries", Integer, nullable=False, server_default=text("0")),  # of the present step, by its process
    Column("holder", Uuid),  # the process that works on it
    timestamp_column("lease_until"),
    timestamp_column("not_before"),
    timestamp_column("expires_at", nullable=False),
    timestamp_column("paused_at"),
    timestamp_column("created_at", nullable=False, default=True),
    timestamp_column("in_progress_at"),
    timestamp_column("finalizing_at"),
    timestamp_column("completed_at"),
    timestamp_column("failed_at"),
    timestamp_column("expired_at"),
    timestamp_column("cancelling_at"),
    timestamp_column("cancelled_at"),
    CheckConstraint(
        "state IN ('validating', 'failed', 'in_progress', 'finalizing', 'completed', 'expired', 'cancelling', "
        "'cancelled')",
        name="state",
    ),
    Index("ix_batches_owner", "owner", "id"),
    Index(
        "uq_batches_idempotency_key",
        "api_key_id",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
    Index(
        "ix_batches_open",
        "state",
        "id",
        postgresql_where=text("state IN ('validating', 'in_progress', 'finalizing', 'cancelling')"),
    ),
)


# The lines of accepted batches. The jobs of a line are the group of its first job.
batch_lines = Table(
    "batch_lines",
    metadata,
    Column("batch_id", Uuid, ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
    Column("n", Integer, nullable=False),  # the number of its line in the file, from 1
    Column("custom_id", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("results", Integer, nullable=False),  # that its answer has
    Column("group_id", Uuid, nullable=False),
    PrimaryKeyConstraint("batch_id", "n"),
    Index("ix_batch_lines_group_id", "group_id"),
)
