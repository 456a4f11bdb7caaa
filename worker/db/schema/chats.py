"""Tables of conversations that users continue. `conversations` in `jobs.py` is the agent's reply of one job."""

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, Table, Text, UniqueConstraint, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from worker.db.schema.base import metadata, timestamp_column

chat_threads = Table(
    "chat_threads",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner", Text, nullable=False),  # as of its jobs
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE")),
    Column("title", Text, nullable=False),
    timestamp_column("created_at", nullable=False, default=True),
    timestamp_column("updated_at", nullable=False, default=True),  # its newest turn
    Index("ix_chat_threads_owner", "owner", "updated_at", "id"),
    Index("ix_chat_threads_user_id", "user_id"),
)

# A turn is one request: the messages of the user, and the jobs that answer them. Its first job names it.
chat_turns = Table(
    "chat_turns",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("thread_id", Uuid, ForeignKey("chat_threads.id", ondelete="CASCADE"), nullable=False),
    Column("n", Integer, nullable=False),  # the order in the conversation
    Column("messages", JSONB, nullable=False),  # [{role, text}], as they were sent
    # It continues the answer of the turn before it, which was cut off.
    Column("continues", Boolean, nullable=False, server_default=text("false")),
    timestamp_column("replaced_at"),  # another turn stands in its place: the message was edited or sent again
    UniqueConstraint("thread_id", "n"),
)
