"""Tables about credits: what jobs were seen to cost, what accounts were seen to hold, which daily gifts were taken."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    Uuid,
    func,
    text,
)

from worker.db.schema.base import metadata

# The newest price seen for a place (an account's region), a model and a shape (see `worker.core.catalog.pricing`).
credit_prices = Table(
    "credit_prices",
    metadata,
    Column("place", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("size", Text, primary_key=True),
    Column("variant", Text, primary_key=True),
    Column("units", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("credits", Integer, nullable=False),
    Column("source", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),  # when upstream charged it
    Column("jobs", Integer, nullable=False, server_default=text("1")),  # how often it was seen so
    CheckConstraint("credits > 0 AND units > 0", name="positive"),
    CheckConstraint("source IN ('history')", name="source"),
)

# What upstream said an account has left: the points of its curve.
credit_readings = Table(
    "credit_readings",
    metadata,
    Column("account_id", Uuid, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("at", DateTime(timezone=True), primary_key=True, server_default=func.clock_timestamp()),
    Column("credits", Integer, nullable=False),
    Index("ix_credit_readings_at", "at"),
)

# One row per account and day of its region: written before the call, so that a day is taken at most once by us.
credit_receives = Table(
    "credit_receives",
    metadata,
    Column("account_id", Uuid, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("how", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("gained", Integer),  # none = the call's answer is not known
    Column("error_code", Text),
    CheckConstraint("how IN ('daily', 'empty', 'asked')", name="how"),
)
