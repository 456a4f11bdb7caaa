"""The table of budgets: who was warned of which limit."""

from sqlalchemy import Column, DateTime, ForeignKey, PrimaryKeyConstraint, Table, Text, Uuid, func

from worker.db.tables import metadata

# One row per user (or line of keys), limit and period whose soft value was reached: the warning is told once.
budget_notices = Table(
    "budget_notices",
    metadata,
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("subject", Text, nullable=False),  # `user`, or the id of the first key of the line
    Column("name", Text, nullable=False),
    Column("period", DateTime(timezone=True), nullable=False),  # its beginning
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("user_id", "subject", "name", "period"),
)
