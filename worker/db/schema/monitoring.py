"""Tables of monitoring: samples over time, the rules and channels of alerts, and the alerts themselves."""

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from worker.db.schema.base import metadata, timestamp_column

# What was measured from `at` on for `step` seconds. Its size is bounded: `worker.core.observability.samples.KEPT`.
metric_samples = Table(
    "metric_samples",
    metadata,
    Column("step", Integer, primary_key=True),
    Column("at", DateTime(timezone=True), primary_key=True),
    Column("measures", JSONB, nullable=False),
)


# What an administrator changed of a rule; a rule without a row is as the code says.
alert_rules = Table(
    "alert_rules",
    metadata,
    Column("name", Text, primary_key=True),
    Column("enabled", Boolean, nullable=False),
    Column("threshold", Double, nullable=False),
    Column("repeat_hours", Double, nullable=False),
    timestamp_column("muted_until"),
)


# Where alerts go. Each is an endpoint of webhooks with the owner `alerts`, which has the address and the secret: the
# secret that signs, or the password of the mail server.
alert_channels = Table(
    "alert_channels",
    metadata,
    Column("id", Uuid, ForeignKey("webhook_endpoints.id", ondelete="CASCADE"), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("rules", ARRAY(Text)),  # NULL = all
    Column("mail", JSONB),  # host, port, security, username, sender, recipients
    CheckConstraint("kind IN ('webhook', 'email')", name="kind"),
    CheckConstraint("(kind = 'email') = (mail IS NOT NULL)", name="mail_has_a_server"),
)


# One row for each time that a rule's condition held for a subject.
alerts = Table(
    "alerts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("rule", Text, nullable=False),
    Column("subject", Text, nullable=False),  # the id of an account, a kind of job, a queue, or empty
    Column("label", Text, nullable=False),  # the subject as people know it
    Column("value", Double, nullable=False),
    Column("threshold", Double, nullable=False),
    timestamp_column("started_at", nullable=False, default=True),
    timestamp_column("resolved_at"),
    timestamp_column("notified_at"),  # the last message about it
    timestamp_column("muted_until"),
    Index("uq_alerts_firing", "rule", "subject", unique=True, postgresql_where=text("resolved_at IS NULL")),
    Index("ix_alerts_started_at", "started_at", "id"),
    Index("ix_alerts_notified", "rule", "subject", "notified_at"),
)
