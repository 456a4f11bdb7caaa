"""Tables of webhooks: endpoints, the outbox of deliveries, and each attempt."""

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
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

# Where an owner's events are sent. `api_key_id`: only events of jobs of this key.
webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE")),
    Column("api_key_id", Uuid, ForeignKey("api_keys.id", ondelete="CASCADE")),
    Column("url", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=text("''")),
    Column("events", ARRAY(Text), nullable=False),
    Column("secret", Text, nullable=False),  # encrypted, like the previous one
    Column("previous_secret", Text),
    timestamp_column("previous_until"),
    timestamp_column("disabled_at"),
    Column("disabled_reason", Text),
    timestamp_column("failing_since"),  # no delivery succeeded since
    timestamp_column("slow_until"),  # it asked for a pause, or responds slowly
    Column("proven", Boolean, nullable=False, server_default=text("false")),  # see `endpoints.remove_unproven`
    timestamp_column("created_at", nullable=False, default=True),
    CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled_for_a_reason"),
    CheckConstraint("(previous_secret IS NULL) = (previous_until IS NULL)", name="previous_secret_ends"),
    Index("ix_webhook_endpoints_owner", "owner", "created_at"),
    Index("ix_webhook_endpoints_user_id", "user_id"),
    Index("ix_webhook_endpoints_api_key_id", "api_key_id"),
)


# The outbox, and the delivery log. A slow receiver only delays its `lane`: its endpoint, or the host of a job's URL.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE")),  # NULL: a test event
    Column("batch_id", Uuid, ForeignKey("batches.id", ondelete="CASCADE")),  # an event of a batch
    Column("endpoint_id", Uuid, ForeignKey("webhook_endpoints.id", ondelete="CASCADE")),  # NULL: the job's `webhook`
    Column("event", Text, nullable=False),
    Column("data", JSONB),  # of an event that is not about a row, as it is sent
    Column("url", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("tries", Integer, nullable=False, server_default=text("0")),  # since it was inserted or replayed
    Column("attempts", Integer, nullable=False, server_default=text("0")),  # in total
    timestamp_column("due_at"),
    timestamp_column("claimed_until"),
    timestamp_column("delivered_at"),
    timestamp_column("given_up_at"),
    Column("last_status", Integer),
    Column("last_error", Text),
    timestamp_column("created_at", nullable=False, default=True),
    CheckConstraint("job_id IS NOT NULL OR endpoint_id IS NOT NULL OR batch_id IS NOT NULL", name="of_job_or_endpoint"),
    CheckConstraint("delivered_at IS NULL OR given_up_at IS NULL", name="one_end"),
    UniqueConstraint("job_id", "endpoint_id", "event"),
    Index(
        "uq_webhook_deliveries_batch",
        "batch_id",
        text("coalesce(endpoint_id, '00000000-0000-0000-0000-000000000000'::uuid)"),
        "event",
        unique=True,
        postgresql_where=text("batch_id IS NOT NULL"),
    ),
    Index("uq_webhook_deliveries_own", "job_id", "event", unique=True, postgresql_where=text("endpoint_id IS NULL")),
    Index("ix_webhook_deliveries_due", "lane", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("ix_webhook_deliveries_claimed", "owner", postgresql_where=text("claimed_until IS NOT NULL")),
    Index("ix_webhook_deliveries_owner", "owner", "created_at", "id"),
    Index("ix_webhook_deliveries_endpoint_id", "endpoint_id", "created_at", "id"),
    Index("ix_webhook_deliveries_settled", "created_at", postgresql_where=text("due_at IS NULL")),
)


# Inserted when an attempt begins, so an attempt that crashed is visible: it has no outcome.
webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    Column("delivery_id", Uuid, ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True),
    Column("n", Integer, primary_key=True),
    timestamp_column("at", nullable=False),
    Column("status", Integer),
    Column("error", Text),
    Column("seconds", Double),
)
