"""Tables of albums, their members, and share links."""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from worker.db.schema.base import metadata, timestamp_column

# An album shows results of its owner and of its contributors. The files stay with their jobs.
albums = Table(
    "albums",
    metadata,
    Column("id", Uuid, primary_key=True),  # time-ordered
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("show_prompts", Boolean, nullable=False, server_default=text("false")),
    Column("cover_id", Uuid),  # a row of `album_files`; without it, the first file is the cover
    timestamp_column("created_at", nullable=False, default=True),
    timestamp_column("updated_at", nullable=False, default=True),
    Index("ix_albums_user_id", "user_id", "id"),
)

# `id` names the file within the album: the id of the file itself would grant access beyond it.
album_files = Table(
    "album_files",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("album_id", Uuid, ForeignKey("albums.id", ondelete="CASCADE"), nullable=False),
    Column("file_id", Uuid, ForeignKey("files.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("added_by", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("position", Integer, nullable=False),
    timestamp_column("added_at", nullable=False, default=True),
    UniqueConstraint("album_id", "file_id"),
    Index("ix_album_files_order", "album_id", "position", "id"),
)

# Users who see an album of another user: a viewer sees it, a contributor also adds own files.
album_members = Table(
    "album_members",
    metadata,
    Column("album_id", Uuid, ForeignKey("albums.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True),
    Column("role", Text, nullable=False),
    timestamp_column("added_at", nullable=False, default=True),
    CheckConstraint("role IN ('viewer', 'contributor')", name="role"),
)

# Public links. The link is derived from the id with the root key and not stored, so the rows alone open no page.
shares = Table(
    "shares",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("title", Text, nullable=False, server_default=text("''")),
    # NULL = the files in `share_files`
    Column("album_id", Uuid, ForeignKey("albums.id", ondelete="CASCADE"), index=True),
    Column("show_prompts", Boolean, nullable=False, server_default=text("false")),
    Column("allow_download", Boolean, nullable=False, server_default=text("true")),
    timestamp_column("created_at", nullable=False, default=True),
    timestamp_column("expires_at", nullable=False),
    Index("ix_shares_user_id", "user_id", "id"),
)

share_files = Table(
    "share_files",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("share_id", Uuid, ForeignKey("shares.id", ondelete="CASCADE"), nullable=False),
    Column("file_id", Uuid, ForeignKey("files.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("position", Integer, nullable=False),
    UniqueConstraint("share_id", "file_id"),
)
