"""Samples over time, and alerts with their rules and channels."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision: str = "0033_monitoring"
down_revision: str | None = "0032_batches"
branch_labels: str | None = None
depends_on: str | None = None


def _moment(name: str, *, nullable: bool = True, now: bool = False) -> "sa.Column[sa.DateTime]":
    default = sa.text("now()") if now else None
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=default)


def _create_alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.Uuid(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("rule", "subject", "label")),
        *(sa.Column(name, sa.Double(), nullable=False) for name in ("value", "threshold")),
        _moment("started_at", nullable=False, now=True),
        *(_moment(name) for name in ("resolved_at", "notified_at", "muted_until")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
    )
    op.create_index(
        "uq_alerts_firing", "alerts", ["rule", "subject"], unique=True, postgresql_where=sa.text("resolved_at IS NULL")
    )
    op.create_index("ix_alerts_started_at", "alerts", ["started_at", "id"])
    op.create_index("ix_alerts_notified", "alerts", ["rule", "subject", "notified_at"])


def upgrade() -> None:
    """Create the tables, and the column for the data of an event that is not about a row."""
    op.create_table(
        "metric_samples",
        sa.Column("step", sa.Integer(), nullable=False),
        _moment("at", nullable=False),
        sa.Column("measures", JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("step", "at", name=op.f("pk_metric_samples")),
    )
    op.create_table(
        "alert_rules",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("repeat_hours", sa.Double(), nullable=False),
        _moment("muted_until"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_alert_rules")),
    )
    op.create_table(
        "alert_channels",
        sa.Column("id", sa.Uuid(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("kind", "name", "language")),
        sa.Column("rules", ARRAY(sa.Text())),
        sa.Column("mail", JSONB()),
        sa.CheckConstraint("kind IN ('webhook', 'email')", name=op.f("ck_alert_channels_kind")),
        sa.CheckConstraint("(kind = 'email') = (mail IS NOT NULL)", name=op.f("ck_alert_channels_mail_has_a_server")),
        sa.ForeignKeyConstraint(
            ["id"], ["webhook_endpoints.id"], name=op.f("fk_alert_channels_id_webhook_endpoints"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_channels")),
    )
    _create_alerts()
    op.add_column("webhook_deliveries", sa.Column("data", JSONB()))


def downgrade() -> None:
    """Remove them, and the endpoints and deliveries of alerts, which the older version could not send."""
    op.execute("DELETE FROM webhook_endpoints WHERE owner = 'alerts'")
    op.drop_column("webhook_deliveries", "data")
    for table in ("alerts", "alert_channels", "alert_rules", "metric_samples"):
        op.drop_table(table)
