"""Tables of users, their API keys and limits, console sessions and the audit log."""

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from worker.db.schema.base import metadata, timestamp_column

users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("disabled", Boolean, nullable=False, server_default=text("false")),
    Column("groups", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    Column(
        "weight", Double, nullable=False, server_default=text("1")
    ),  # its share of the fair queue, see `fair_queue.py`
    Column("priority", Integer, nullable=False, server_default=text("0")),
    Column("retention_days", Integer),  # of results; NULL = the platform's setting, 0 = permanently
    # By name (`worker/core/quotas.py`): hard limits and warning limits; absent = the platform's default.
    Column("limits", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("soft_limits", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    timestamp_column("created_at", nullable=False, default=True),
    Column("password_hash", Text),  # argon2; NULL = cannot sign in with a password
    CheckConstraint("role IN ('admin', 'member', 'viewer')", name="role"),
    CheckConstraint("weight > 0", name="weight"),
    CheckConstraint("retention_days >= 0", name="retention_days"),
)


api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("key_hash", Text, nullable=False, unique=True),
    Column("scopes", ARRAY(Text)),  # its permissions; NULL = all that its user's role allows
    Column("models", ARRAY(Text)),  # public model ids it may use; NULL = all
    Column("providers", ARRAY(Text)),  # whose accounts its jobs may use; NULL = all
    Column("accounts", ARRAY(Uuid)),  # that its jobs may use; NULL = all, if `account_groups` is NULL too
    Column("account_groups", ARRAY(Text)),  # whose accounts its jobs may use, beside `accounts`
    timestamp_column("expires_at"),
    timestamp_column("last_used_at"),
    timestamp_column("created_at", nullable=False, default=True),
    timestamp_column("revoked_at"),  # in the future while a rotated key is in its grace period
    # `console`: holds the console sessions of its user that began without a key. Nobody knows it.
    Column("purpose", Text, nullable=False, server_default=text("'api'")),
    Column("root_id", Uuid),  # of a rotated key: the first key, to which its jobs and quotas belong
    Column("limits", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("soft_limits", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    CheckConstraint("purpose IN ('api', 'console')", name="purpose"),
    Index("ix_api_keys_root_id", "root_id", postgresql_where=text("root_id IS NOT NULL")),
    Index("uq_api_keys_console", "user_id", unique=True, postgresql_where=text("purpose = 'console'")),
)


# Every administrative action, append-only (a trigger rejects changes).
audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Uuid, primary_key=True),  # time-ordered
    timestamp_column("at", nullable=False, default=True),
    Column("actor", Text, nullable=False),
    Column("actor_id", Uuid),
    Column("address", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("details", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
)


# One row per user (or rotated key), limit and period whose warning limit was reached: each warning is sent once.
budget_notices = Table(
    "budget_notices",
    metadata,
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("subject", Text, nullable=False),  # `user`, or the id of the first key
    Column("name", Text, nullable=False),
    Column("period", DateTime(timezone=True), nullable=False),  # its start
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("user_id", "subject", "name", "period"),
)


# Console sign-ins: only the hash of the random id in the cookie is stored. A session ends with its API key.
console_sessions = Table(
    "console_sessions",
    metadata,
    Column("id_hash", Text, primary_key=True),
    Column("api_key_id", Uuid, ForeignKey("api_keys.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("last_used_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("id", Uuid, nullable=False, unique=True, server_default=text("gen_random_uuid()")),  # for lists
    Column("method", Text, nullable=False, server_default=text("'key'")),  # how it began
    Column("persistent", Boolean, nullable=False, server_default=text("false")),  # the browser keeps its cookie
    Column("device", Text, nullable=False, server_default=text("''")),  # browser and system
    Column("address", Text, nullable=False, server_default=text("''")),
    CheckConstraint("method IN ('key', 'password', 'invitation', 'oidc')", name="method"),
    Index("ix_console_sessions_expires_at", "expires_at"),
)


# One-time links that sign a user in. Only the hash of the link's secret is stored.
invitations = Table(
    "invitations",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("token_hash", Text, nullable=False, unique=True),
    Column("created_by", Text, nullable=False),
    timestamp_column("created_at", nullable=False, default=True),
    timestamp_column("expires_at", nullable=False),
    timestamp_column("used_at"),
)


# Users of an OpenID provider: its `iss` and `sub`.
identities = Table(
    "identities",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    timestamp_column("created_at", nullable=False, default=True),
)
