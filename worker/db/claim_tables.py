"""What the choice of an account remembers (`scores.py`)."""

from sqlalchemy import Column, DateTime, Double, ForeignKey, Table, Text, Uuid, func, text

from worker.db.tables import metadata

# How jobs of a model ended on an account; both counts fade from `at` on.
account_marks = Table(
    "account_marks",
    metadata,
    Column("account_id", Uuid, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("model", Text, primary_key=True),
    Column("good", Double, nullable=False, server_default=text("0")),
    Column("bad", Double, nullable=False, server_default=text("0")),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)
