"""Tables of the web console."""

from sqlalchemy import Column, DateTime, ForeignKey, Index, Table, Text, Uuid, func

from worker.db.tables import metadata

# Who is signed in: a random id in a cookie, of which only the hash is here. It ends with its API key.
console_sessions = Table(
    "console_sessions",
    metadata,
    Column("id_hash", Text, primary_key=True),
    Column("api_key_id", Uuid, ForeignKey("api_keys.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("last_used_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Index("ix_console_sessions_expires_at", "expires_at"),
)
