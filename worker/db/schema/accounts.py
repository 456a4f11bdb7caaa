"""Tables of upstream accounts: the accounts, checks of session ids, and how jobs ended on them."""

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
    Table,
    Text,
    Time,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from worker.db.schema.base import metadata, timestamp_column

# An upstream account. `pool`: the platform's, for all users or those of its groups; `user_id`: one user's own; neither:
# it belongs to whoever presents its session id. What that means for a job: `eligibility.py`.
accounts = Table(
    "accounts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("label", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("lookup_hash", Text, nullable=False, unique=True),
    Column("secret", Text, nullable=False),
    Column("proxy", Text),  # sealed; the way out for every call of this account
    Column("proxy_hash", Text),  # tells one proxy from another without opening them; "" = told to go direct
    Column("proxy_place", Text),  # where the proxy is, without credentials, to be shown
    Column("pool", Boolean, nullable=False, server_default=text("false")),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="RESTRICT")),
    Column("groups", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),  # none = all users
    Column("state", Text, nullable=False, server_default=text("'ok'")),
    Column("state_code", Text),  # why it needs a login or is blocked
    timestamp_column("state_at"),
    # How often in a row the free call met an unknown session, and submits met risk control (once per rest).
    Column("login_refusals", Integer, nullable=False, server_default=text("0")),
    Column("risk_refusals", Integer, nullable=False, server_default=text("0")),
    timestamp_column("rest_until"),
    Column("rest_code", Text),
    Column("max_images", Integer),
    Column("max_videos", Integer),
    Column("max_jobs_per_day", Integer),
    Column("hours_days", ARRAY(Integer)),  # ISO: 1 = Monday
    Column("hours_from", Time),
    Column("hours_to", Time),
    Column("hours_zone", Text),
    # Kinds of jobs that upstream has no room for: kind -> epoch seconds until which it rests.
    Column("kind_rests", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("submits_per_minute", Double),
    timestamp_column("next_submit_at", nullable=False, default=True),
    timestamp_column("last_submit_at"),
    Column("used", Double, nullable=False, server_default=text("0")),  # jobs it took lately, at its last submit
    # Kind -> {place, at}: how far in the line it has come, and when it took the last job (epoch seconds).
    Column("turns", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    timestamp_column("poll_due_at"),
    timestamp_column("polled_at"),
    Column("cluster", JSONB),
    timestamp_column("cluster_at"),
    Column("credits", Integer),
    timestamp_column("credits_at"),
    Column("models", JSONB),  # what upstream offers it, as `worker.core.catalog.upstream_models` reads it
    timestamp_column("models_at"),
    timestamp_column("refresh_due_at"),  # its next check-up
    timestamp_column("checked_at"),
    Column("check_code", Text),  # what went wrong in the last check-up
    Column("daily_receive", Boolean),  # whether its daily credits are fetched; NULL = as the setting says
    timestamp_column("ledger_due_at"),  # when upstream may be asked again what its jobs did cost
    timestamp_column("created_at", nullable=False, default=True),
    CheckConstraint("state IN ('ok', 'paused', 'needs_login', 'blocked', 'retired')", name="state"),
    CheckConstraint("NOT pool OR user_id IS NULL", name="one_owner"),
    CheckConstraint("num_nulls(hours_days, hours_from, hours_to, hours_zone) IN (0, 4)", name="hours_whole"),
    CheckConstraint("region IN ('auto', 'cn', 'us', 'sg', 'hk', 'jp', 'sandbox')", name="region"),
    Index("ix_accounts_poll_due_at", "poll_due_at", postgresql_where=text("poll_due_at IS NOT NULL")),
    Index("ix_accounts_user_id", "user_id", postgresql_where=text("user_id IS NOT NULL")),
    Index("ix_accounts_pool", "id", postgresql_where=text("pool")),
)


# A question about a session id that makes no account: asked by the API, answered by a worker, gone after minutes.
account_checks = Table(
    "account_checks",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner", Text, nullable=False),  # a hash of where the question came from
    Column("what", Text, nullable=False),
    Column("lookup_hash", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("proxy", Text),
    Column("proxy_hash", Text),
    Column("state", Text, nullable=False, server_default=text("'queued'")),
    Column("result", JSONB),
    timestamp_column("claimed_at"),
    timestamp_column("created_at", nullable=False, default=True),
    CheckConstraint("state IN ('queued', 'succeeded')", name="state"),
    CheckConstraint("(state = 'succeeded') = (result IS NOT NULL)", name="answered_iff_result"),
    CheckConstraint("what IN ('check', 'points', 'receive', 'checkup')", name="what"),
    Index("ix_account_checks_owner", "owner", "created_at"),
    Index("ix_account_checks_created_at", "created_at"),
)


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
