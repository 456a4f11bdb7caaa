"""The table of keys that the database keeps, sealed by the master key."""

from sqlalchemy import Column, Table, Text

from worker.db.tables import _moment, metadata

keyring = Table(
    "keyring",
    metadata,
    Column("name", Text, primary_key=True),
    Column("sealed", Text, nullable=False),
    _moment("created_at", nullable=False, default=True),
)
