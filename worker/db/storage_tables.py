"""The table of what the platform as a whole remembers: its identity, how far a clean-up has come, whether it drains."""

from sqlalchemy import Column, DateTime, Table, Text, func
from sqlalchemy.dialects.postgresql import JSONB

from worker.db.tables import metadata

platform_state = Table(
    "platform_state",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", JSONB, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
