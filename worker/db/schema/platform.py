"""Tables of the platform: keys encrypted with the master key, and named state such as a drain."""

from sqlalchemy import Column, DateTime, Table, Text, func
from sqlalchemy.dialects.postgresql import JSONB

from worker.db.schema.base import metadata, timestamp_column

keyring = Table(
    "keyring",
    metadata,
    Column("name", Text, primary_key=True),
    Column("sealed", Text, nullable=False),
    timestamp_column("created_at", nullable=False, default=True),
)


platform_state = Table(
    "platform_state",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", JSONB, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
