"""Tables of credits: learned prices, readings of account balances, and claims of daily credits."""

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

# The newest observed price of a model and shape (see `worker.core.catalog.pricing`) in a place (an account's region).
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
    Column("jobs", Integer, nullable=False, server_default=text("1")),  # number of jobs with this price
    CheckConstraint("credits > 0 AND units > 0", name="positive"),
    CheckConstraint("source IN ('history')", name="source"),
)

# Balances of an account as reported by upstream over time.
credit_readings = Table(
    "credit_readings",
    metadata,
    Column("account_id", Uuid, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("at", DateTime(timezone=True), primary_key=True, server_default=func.clock_timestamp()),
    Column("credits", Integer, nullable=False),
    Index("ix_credit_readings_at", "at"),
)

# One row per account and day of its region, inserted before the call: each day is claimed at most once.
credit_receives = Table(
    "credit_receives",
    metadata,
    Column("account_id", Uuid, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("how", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("gained", Integer),  # NULL = the response of the call is unknown
    Column("error_code", Text),
    CheckConstraint("how IN ('daily', 'empty', 'asked')", name="how"),
)
