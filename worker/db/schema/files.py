"""Tables of stored bytes: results, inputs, and the uploads of inputs to accounts."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from worker.db.schema.base import metadata, timestamp_column

files = Table(
    "files",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("n", Integer, nullable=False),
    # `original` is the result; a video also has a `thumbnail` (its first frame) and a `spritesheet`, and the
    # `last_frame` if that was requested.
    Column("variant", Text, nullable=False, server_default=text("'original'")),
    Column("key", Text, nullable=False),
    Column("mime", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("width", Integer),
    Column("height", Integer),
    Column("seconds", Double),
    Column("layer", JSONB),  # of a layer of a picture: name, description, box (left, top, right, bottom in pixels)
    timestamp_column("created_at", nullable=False, default=True),
    timestamp_column("removed_at"),  # from then on it cannot be read
    timestamp_column("erased_at"),  # its bytes were deleted
    timestamp_column("deleted_at"),  # by its owner: it is in no list, and has no link any more
    # Marks of its owner; NULL = as its job. All variants of a result have the same.
    Column("favourite", Boolean),
    Column("pinned", Boolean),
    UniqueConstraint("job_id", "n", "variant"),
    CheckConstraint("variant IN ('original', 'thumbnail', 'spritesheet', 'last_frame')", name="variant"),
    Index("ix_files_kept_jobs", "job_id", postgresql_where=text("removed_at IS NULL")),
    Index("ix_files_to_erase", "id", postgresql_where=text("removed_at IS NOT NULL AND erased_at IS NULL")),
    Index("ix_files_key", "key"),
)


# The inputs of a job, in the caller's order. A link has no key until a worker has fetched it.
job_inputs = Table(
    "job_inputs",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("role", Text, nullable=False, server_default=text("'reference'")),
    Column("media", Text, nullable=False, server_default=text("'image'")),
    Column("name", Text, nullable=False, server_default=text("''")),  # its `@name` in an omni prompt
    Column("url", Text),
    Column("key", Text),
    Column("mime", Text),
    Column("bytes", BigInteger),
    Column("width", Integer),
    Column("height", Integer),
    Column("sha256", Text),
    Column("milliseconds", Integer),
    Column("origin_file_id", Uuid),  # the result that it is a copy of; not a reference, since results are deleted first
    timestamp_column("removed_at"),
    CheckConstraint("url IS NOT NULL OR key IS NOT NULL", name="link_or_bytes"),
    CheckConstraint("role IN ('reference', 'first_frame', 'end_frame')", name="role"),
    CheckConstraint("media IN ('image', 'video', 'audio')", name="media"),
    Index("ix_job_inputs_key", "key", postgresql_where=text("key IS NOT NULL AND removed_at IS NULL")),
    Index("ix_job_inputs_stored", "job_id", postgresql_where=text("key IS NOT NULL AND removed_at IS NULL")),
    Index("ix_job_inputs_origin_file_id", "origin_file_id", postgresql_where=text("origin_file_id IS NOT NULL")),
)


# An input as uploaded to one account; another account cannot use it. `uri`: upstream's id of it.
input_uploads = Table(
    "input_uploads",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("account_id", Uuid, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("uri", Text, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("format", Text, nullable=False),
    Column("milliseconds", Integer, nullable=False, server_default=text("0")),
    timestamp_column("created_at", nullable=False, default=True),
    ForeignKeyConstraint(
        ["job_id", "n"], ["job_inputs.job_id", "job_inputs.n"], ondelete="CASCADE", name="fk_input_uploads_input"
    ),
)
