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

from worker.core.catalog.provider_data import first_provider
from worker.db.schema.base import metadata, timestamp_column

# An upstream account. `pool`: of the platform, for all users or those of its groups; `user_id`: of one user; neither:
# usable with its session id. `eligibility.py` has the rules for jobs.
accounts = Table(
    "accounts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("label", Text, nullable=False),
    Column("provider", Text, nullable=False, server_default=text(f"'{first_provider()}'")),
    Column("region", Text, nullable=False),  # one of the provider's
    Column("limit_group", Text),  # accounts of one paying customer share their limits; NULL = it is alone
    Column("currency", Text),  # of its prices; NULL = upstream has credits of its own
    Column("model_ids", JSONB, nullable=False, server_default=text("'{}'::jsonb")),  # our model -> upstream's id
    # Models that rest on this account: model -> {until, code, detail, at}; until = epoch seconds, or "Infinity" = until
    # an operator looks.
    Column("model_rests", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("provider_facts", JSONB, nullable=False, server_default=text("'{}'::jsonb")),  # what its provider learned
    Column("prices", JSONB, nullable=False, server_default=text("'{}'::jsonb")),  # that replace those of the catalog
    Column("lookup_hash", Text, nullable=False, unique=True),
    Column("secret", Text, nullable=False),
    Column("proxy", Text),  # encrypted; every call of this account uses it
    Column("proxy_hash", Text),  # compares proxies without decrypting them; "" = explicitly no proxy
    Column("proxy_place", Text),  # host and port for display, without credentials
    Column("pool", Boolean, nullable=False, server_default=text("false")),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="RESTRICT")),
    Column("groups", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),  # empty = all users
    Column("state", Text, nullable=False, server_default=text("'ok'")),
    Column("state_code", Text),  # why it needs a login or is blocked
    timestamp_column("state_at"),
    # Consecutive checks that found an unknown session, and consecutive risk-control refusals (one per cooldown).
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
    # Cooldowns of job kinds whose upstream queue is full: kind -> end in epoch seconds.
    Column("kind_rests", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("submits_per_minute", Double),
    timestamp_column("next_submit_at", nullable=False, default=True),
    timestamp_column("last_submit_at"),
    Column("used", Double, nullable=False, server_default=text("0")),  # recent jobs, decayed, as of its last submit
    # Kind -> {place, at}: its progress in the fair queue, and when it claimed its last job (epoch seconds).
    Column("turns", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    timestamp_column("poll_due_at"),
    timestamp_column("polled_at"),
    # Polling of this account; NULL = as the settings say.
    Column("poll_min_seconds", Double),
    Column("poll_max_seconds", Double),
    Column("poll_eagerness", Double),
    Column("cluster", JSONB),
    timestamp_column("cluster_at"),
    Column("credits", Integer),
    timestamp_column("credits_at"),
    Column("models", JSONB),  # models that upstream lists, in the format of `worker.core.catalog.upstream_models`
    timestamp_column("models_at"),
    timestamp_column("refresh_due_at"),  # next account check
    timestamp_column("checked_at"),
    Column("check_code", Text),  # error code of the last account check
    Column("daily_receive", Boolean),  # whether its daily credits are claimed; NULL = the platform's setting
    timestamp_column("ledger_due_at"),  # when the credit history may be read again
    timestamp_column("created_at", nullable=False, default=True),
    CheckConstraint("state IN ('ok', 'paused', 'needs_login', 'blocked', 'retired')", name="state"),
    CheckConstraint("NOT pool OR user_id IS NULL", name="one_owner"),
    CheckConstraint("num_nulls(hours_days, hours_from, hours_to, hours_zone) IN (0, 4)", name="hours_whole"),
    Index("ix_accounts_poll_due_at", "poll_due_at", postgresql_where=text("poll_due_at IS NOT NULL")),
    Index("ix_accounts_user_id", "user_id", postgresql_where=text("user_id IS NOT NULL")),
    Index("ix_accounts_pool", "id", postgresql_where=text("pool")),
    Index("ix_accounts_limit_group", "limit_group", postgresql_where=text("limit_group IS NOT NULL")),
)


# A check of a session id without an account: inserted by the API, answered by a worker, deleted after minutes.
account_checks = Table(
    "account_checks",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner", Text, nullable=False),  # a hash of the caller
    Column("what", Text, nullable=False),
    Column("provider", Text, nullable=False, server_default=text(f"'{first_provider()}'")),
    Column("lookup_hash", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("proxy", Text),
    Column("proxy_hash", Text),
    Column("params", JSONB),  # of a step of a proof
    Column("state", Text, nullable=False, server_default=text("'queued'")),
    Column("result", JSONB),
    timestamp_column("claimed_at"),
    timestamp_column("created_at", nullable=False, default=True),
    CheckConstraint("state IN ('queued', 'succeeded')", name="state"),
    CheckConstraint("(state = 'succeeded') = (result IS NOT NULL)", name="answered_iff_result"),
    CheckConstraint("what IN ('check', 'points', 'receive', 'checkup', 'prove')", name="what"),
    Index("ix_account_checks_owner", "owner", "created_at"),
    Index("ix_account_checks_created_at", "created_at"),
)


# Outcomes of the jobs of a model on an account; both counts decay from `at` on.
account_marks = Table(
    "account_marks",
    metadata,
    Column("account_id", Uuid, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("model", Text, primary_key=True),
    Column("good", Double, nullable=False, server_default=text("0")),
    Column("bad", Double, nullable=False, server_default=text("0")),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)


# When the next list may be read from an upstream that allows few of them, by limit group or account. A lost row costs
# one call that comes too early.
list_paces = Table(
    "list_paces",
    metadata,
    Column("name", Text, primary_key=True),
    Column("next_at", DateTime(timezone=True), nullable=False),
)
