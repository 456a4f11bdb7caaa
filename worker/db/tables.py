"""Every table. A change here needs a migration; `alembic check` in the tests holds the two together."""

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Time,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _moment(name: str, *, nullable: bool = True, default: bool = False) -> "Column[datetime]":
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=func.now() if default else None)


users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("disabled", Boolean, nullable=False, server_default=text("false")),
    Column("groups", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    Column("weight", Double, nullable=False, server_default=text("1")),  # its share when several wait, see `turns.py`
    Column("priority", Integer, nullable=False, server_default=text("0")),
    Column("retention_days", Integer),  # of results; NULL = the platform's setting, 0 = kept for ever
    # By name (`worker/core/quotas.py`): what refuses, and what only warns; absent = the platform's default.
    Column("limits", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("soft_limits", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    _moment("created_at", nullable=False, default=True),
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
    Column("scopes", ARRAY(Text)),  # what it may do; NULL = whatever its user's role allows
    Column("models", ARRAY(Text)),  # public ids it may ask for; NULL = all
    _moment("expires_at"),
    _moment("last_used_at"),
    _moment("created_at", nullable=False, default=True),
    _moment("revoked_at"),  # a moment to come while a rotated key is still in its grace
    Column("root_id", Uuid),  # of a rotated key: the first of its line, which its jobs and budgets count with
    Column("limits", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("soft_limits", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Index("ix_api_keys_root_id", "root_id", postgresql_where=text("root_id IS NOT NULL")),
)

# Every administrative act, append-only (a trigger refuses changes).
audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Uuid, primary_key=True),  # time-ordered
    _moment("at", nullable=False, default=True),
    Column("actor", Text, nullable=False),
    Column("actor_id", Uuid),
    Column("address", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("details", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
)

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
    _moment("state_at"),
    # How often in a row the free call met an unknown session, and submits met risk control (once per rest).
    Column("login_refusals", Integer, nullable=False, server_default=text("0")),
    Column("risk_refusals", Integer, nullable=False, server_default=text("0")),
    _moment("rest_until"),
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
    _moment("next_submit_at", nullable=False, default=True),
    _moment("last_submit_at"),
    Column("used", Double, nullable=False, server_default=text("0")),  # jobs it took lately, at its last submit
    # Kind -> {place, at}: how far in the line it has come, and when it took the last job (epoch seconds).
    Column("turns", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    _moment("poll_due_at"),
    _moment("polled_at"),
    Column("cluster", JSONB),
    _moment("cluster_at"),
    Column("credits", Integer),
    _moment("credits_at"),
    Column("models", JSONB),  # what upstream offers it, as `worker.core.catalog.upstream_models` reads it
    _moment("models_at"),
    _moment("refresh_due_at"),  # its next check-up
    _moment("checked_at"),
    Column("check_code", Text),  # what went wrong in the last check-up
    Column("daily_receive", Boolean),  # whether its daily credits are fetched; NULL = as the setting says
    _moment("ledger_due_at"),  # when upstream may be asked again what its jobs did cost
    _moment("created_at", nullable=False, default=True),
    CheckConstraint("state IN ('ok', 'paused', 'needs_login', 'blocked', 'retired')", name="state"),
    CheckConstraint("NOT pool OR user_id IS NULL", name="one_owner"),
    CheckConstraint("num_nulls(hours_days, hours_from, hours_to, hours_zone) IN (0, 4)", name="hours_whole"),
    CheckConstraint("region IN ('auto', 'cn', 'us', 'sg', 'hk', 'jp', 'sandbox')", name="region"),
    Index("ix_accounts_poll_due_at", "poll_due_at", postgresql_where=text("poll_due_at IS NOT NULL")),
    Index("ix_accounts_user_id", "user_id", postgresql_where=text("user_id IS NOT NULL")),
    Index("ix_accounts_pool", "id", postgresql_where=text("pool")),
)

# As Postgres writes it back. A priority is a head start of 20 turns.
PLACE = "(turn - ((20)::double precision * (priority)::double precision))"

_USAGE = ["id", "user_id", "api_key_id", "account_id", "kind", "model", "state", "attempt", "price", "charged"]

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner", Text, nullable=False),  # `user:<id>` or `tokens:<hash>`
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="SET NULL")),
    Column("api_key_id", Uuid, ForeignKey("api_keys.id", ondelete="SET NULL")),
    Column("group_id", Uuid, nullable=False),  # jobs of one request share it; the first job's id
    # The conversation that started this job, if one did.
    Column("parent_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE")),
    Column("kind", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("params", JSONB, nullable=False),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("state", Text, nullable=False),
    Column("turn", Double, nullable=False, server_default=text("0")),  # see `turns.py`
    Column("priority", Integer, nullable=False, server_default=text("0")),
    Column("place", Double, Computed(PLACE, persisted=True), nullable=False),  # the order of the claim
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("max_attempts", Integer, nullable=False),
    _moment("due_at", nullable=False),
    _moment("deadline_at", nullable=False),
    _moment("nudged_at"),
    Column("account_ids", ARRAY(Uuid), nullable=False),  # accounts it may use; empty = all of its caller's
    Column("account_choice", Text, nullable=False, server_default=text("'any'")),  # its user's own, the pool, or both
    Column("account_id", Uuid, ForeignKey("accounts.id", ondelete="RESTRICT")),
    Column("holds_slot", Boolean, nullable=False, server_default=text("false")),
    Column("submit_key", Uuid, unique=True),
    Column("upstream_id", Text),
    Column("avoid_accounts", ARRAY(Uuid), nullable=False, server_default=text("'{}'::uuid[]")),
    Column("progress", Integer, nullable=False, server_default=text("0")),
    Column("queue_position", Integer),  # upstream's queue
    Column("forecast_seconds", Integer),
    _moment("absent_since"),
    Column("ready_items", Integer, nullable=False, server_default=text("0")),
    Column("stable_polls", Integer, nullable=False, server_default=text("0")),
    _moment("stable_since"),
    Column("save_tries", Integer, nullable=False, server_default=text("0")),
    Column("result_refs", JSONB),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("webhook_url", Text),
    _moment("cancel_requested_at"),
    _moment("created_at", nullable=False, default=True),
    _moment("submitted_at"),
    _moment("finished_at"),
    Column("event_seq", Integer, nullable=False, server_default=text("0")),
    # What jobs like it took when it was accepted; kept, because progress is told by it and must never fall.
    Column("usual_seconds", Double),
    Column(
        "origin", JSONB
    ),  # the request that made it and its trace, as `worker.core.observability.job_context` reads it
    Column("price", Integer),  # credits it is expected to cost, set when it is accepted; NULL = not known
    Column("charged", Integer),  # credits it did cost, as far as known; 0 = surely nothing
    _moment("settled_at"),  # when `charged` became upstream's word, or was proven to be nothing; NULL = it is assumed
    _moment("pinned_at"),  # by its owner: its files are kept beyond the retention
    Column("favourite", Boolean, nullable=False, server_default=text("false")),  # its owner's mark
    _moment("deleted_at"),  # by its owner, who sees it no more; then its files lose their bytes
    CheckConstraint("kind IN ('image', 'video', 'chat')", name="kind"),
    CheckConstraint("account_choice IN ('any', 'own', 'pool')", name="account_choice"),
    CheckConstraint(
        "state IN ('queued', 'submitting', 'running', 'saving', 'succeeded', 'failed', 'cancelled')", name="state"
    ),
    CheckConstraint(
        "(state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)", name="terminal_iff_finished"
    ),
    CheckConstraint(
        "state NOT IN ('submitting', 'running', 'saving') OR (account_id IS NOT NULL AND submit_key IS NOT NULL)",
        name="open_work_has_account",
    ),
    CheckConstraint("(state = 'failed') = (error_code IS NOT NULL)", name="failed_iff_error"),
    CheckConstraint(
        "holds_slot = (state IN ('submitting', 'running')) OR state = 'cancelled'", name="slot_while_upstream_works"
    ),
    CheckConstraint("progress BETWEEN 0 AND 100", name="progress"),
    # Names given, so that a slow query's plan says which rule it used.
    Index("ix_jobs_queue", "kind", "place", "id", postgresql_where=text("state = 'queued'")),
    Index("ix_jobs_turns", "owner", "kind", "turn", postgresql_where=text("attempt > 0 OR state = 'queued'")),
    Index("ix_jobs_account_id", "account_id", "submitted_at", postgresql_where=text("account_id IS NOT NULL")),
    Index(
        "ix_jobs_unsettled",
        "account_id",
        "submitted_at",
        postgresql_where=text("submitted_at IS NOT NULL AND settled_at IS NULL"),
    ),
    Index("ix_jobs_slots", "account_id", postgresql_where=text("holds_slot")),
    Index("ix_jobs_saving", "due_at", postgresql_where=text("state = 'saving'")),
    Index(
        "ix_jobs_deadline",
        "deadline_at",
        postgresql_where=text("state IN ('queued', 'submitting', 'running', 'saving')"),
    ),
    Index("ix_jobs_account_ids", "account_ids", postgresql_using="gin"),
    Index("ix_jobs_user_id", "user_id", "id"),
    Index(
        "ix_jobs_open_owner",
        "owner",
        postgresql_where=text("state IN ('queued', 'submitting', 'running', 'saving')"),
    ),
    # What budgets and usage reports read, so that neither visits the wide rows.
    Index("ix_jobs_usage", "owner", "created_at", postgresql_include=_USAGE),
    Index("ix_jobs_group_id", "group_id"),
    Index("ix_jobs_favourite", "user_id", "id", postgresql_where=text("favourite")),
    Index("ix_jobs_parent_id", "parent_id", postgresql_where=text("parent_id IS NOT NULL")),
    Index("ix_jobs_pinned", "owner", postgresql_where=text("pinned_at IS NOT NULL")),
    Index("ix_jobs_deleted_at", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
    Index("ix_jobs_succeeded", "kind", "model", text("finished_at DESC"), postgresql_where=text("state = 'succeeded'")),
)

# The creating request that stands for a group of jobs: whoever repeats it joins them instead of making new ones. The
# holder is the newest HTTP request for them; it is open until it has an end, or its process is gone.
requests = Table(
    "requests",
    metadata,
    # Deferred, because this row is what two twins race for, and so it is written before the jobs.
    Column(
        "group_id",
        Uuid,
        ForeignKey("jobs.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED"),
        primary_key=True,
    ),
    Column("caller", Text, nullable=False),  # `key:<id>` or `tokens:<hash>`
    Column("route", Text, nullable=False),  # method and path
    Column("key", Text),  # the Idempotency-Key, if one was sent
    Column("fingerprint", Text, nullable=False),
    Column("holder", Uuid, nullable=False),
    Column("process", Uuid, nullable=False),
    Column("joins", Integer, nullable=False, server_default=text("0")),
    _moment("accepted_at", nullable=False, default=True),
    _moment("held_at", nullable=False, default=True),
    _moment("gives_up_at"),  # when the holder's client said it would hang up
    _moment("ended_at"),
    Column("ended_how", Text),
    CheckConstraint("(ended_at IS NULL) = (ended_how IS NULL)", name="ended_somehow"),
    CheckConstraint("ended_how IN ('answered', 'timeout', 'cut')", name="ended_how"),
    Index("uq_requests_key", "caller", "route", "key", unique=True, postgresql_where=text("key IS NOT NULL")),
    Index("ix_requests_fingerprint", "fingerprint", postgresql_where=text("key IS NULL")),
    Index("ix_requests_accepted_at", "accepted_at"),
)

# API processes say every second that they live: an open request of a dead one was cut.
api_processes = Table(
    "api_processes",
    metadata,
    Column("id", Uuid, primary_key=True),
    _moment("seen_at", nullable=False, default=True),
)

job_events = Table(
    "job_events",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    _moment("at", nullable=False, default=True),
    Column("from_state", Text),
    Column("to_state", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("note", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
)

files = Table(
    "files",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("n", Integer, nullable=False),
    # `original` is the result; a video also has a `thumbnail` (its first frame) and a `spritesheet`.
    Column("variant", Text, nullable=False, server_default=text("'original'")),
    Column("key", Text, nullable=False),
    Column("mime", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("width", Integer),
    Column("height", Integer),
    Column("seconds", Double),
    _moment("created_at", nullable=False, default=True),
    _moment("removed_at"),  # from here on nobody may read it
    _moment("erased_at"),  # its bytes are gone
    UniqueConstraint("job_id", "n", "variant"),
    CheckConstraint("variant IN ('original', 'thumbnail', 'spritesheet')", name="variant"),
    Index("ix_files_kept", "created_at", postgresql_where=text("removed_at IS NULL")),
    Index("ix_files_to_erase", "id", postgresql_where=text("removed_at IS NOT NULL AND erased_at IS NULL")),
    Index("ix_files_key", "key"),
)

# What a job is made from, in the caller's order. A link has no key until the submit step has fetched it.
job_inputs = Table(
    "job_inputs",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("role", Text, nullable=False, server_default=text("'reference'")),
    Column("media", Text, nullable=False, server_default=text("'image'")),
    Column("name", Text, nullable=False, server_default=text("''")),  # what `@name` in an omni prompt means
    Column("url", Text),
    Column("key", Text),
    Column("mime", Text),
    Column("bytes", BigInteger),
    Column("width", Integer),
    Column("height", Integer),
    Column("sha256", Text),
    Column("milliseconds", Integer),
    _moment("removed_at"),
    CheckConstraint("url IS NOT NULL OR key IS NOT NULL", name="link_or_bytes"),
    CheckConstraint("role IN ('reference', 'first_frame', 'end_frame')", name="role"),
    CheckConstraint("media IN ('image', 'video', 'audio')", name="media"),
    Index("ix_job_inputs_key", "key", postgresql_where=text("key IS NOT NULL AND removed_at IS NULL")),
)

# An input as one account uploaded it; another account cannot use its uri (of a video or sound: its vid).
input_uploads = Table(
    "input_uploads",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("account_id", Uuid, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("uri", Text, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("format", Text, nullable=False),
    Column("milliseconds", Integer, nullable=False, server_default=text("0")),
    _moment("created_at", nullable=False, default=True),
    ForeignKeyConstraint(
        ["job_id", "n"], ["job_inputs.job_id", "job_inputs.n"], ondelete="CASCADE", name="fk_input_uploads_input"
    ),
)

# A conversation with the agent (kind `chat`). The row is made just before the one call that sends it.
conversations = Table(
    "conversations",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, nullable=False),  # of the job: an attempt without a row was surely never sent
    _moment("sent_at", nullable=False, default=True),
    Column("said", Text, nullable=False, server_default=text("''")),
    Column("calls", Integer, nullable=False, server_default=text("0")),  # of tools; those that became jobs have rows
    Column("finish", Text),  # null while the agent talks
    _moment("updated_at", nullable=False, default=True),
    CheckConstraint("finish IN ('stop', 'length')", name="finish"),
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
    _moment("claimed_at"),
    _moment("created_at", nullable=False, default=True),
    CheckConstraint("state IN ('queued', 'succeeded')", name="state"),
    CheckConstraint("(state = 'succeeded') = (result IS NOT NULL)", name="answered_iff_result"),
    CheckConstraint("what IN ('check', 'points', 'receive', 'checkup')", name="what"),
    Index("ix_account_checks_owner", "owner", "created_at"),
    Index("ix_account_checks_created_at", "created_at"),
)

# Where an owner's events go. `api_key_id`: only those of jobs that this key made.
webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE")),
    Column("api_key_id", Uuid, ForeignKey("api_keys.id", ondelete="CASCADE")),
    Column("url", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=text("''")),
    Column("events", ARRAY(Text), nullable=False),
    Column("secret", Text, nullable=False),  # sealed, as is the one before it
    Column("previous_secret", Text),
    _moment("previous_until"),
    _moment("disabled_at"),
    Column("disabled_reason", Text),
    _moment("failing_since"),  # nothing was taken since
    _moment("slow_until"),  # it asked for a pause, or lets us wait
    Column("proven", Boolean, nullable=False, server_default=text("false")),  # see `endpoints.remove_unproven`
    _moment("created_at", nullable=False, default=True),
    CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled_for_a_reason"),
    CheckConstraint("(previous_secret IS NULL) = (previous_until IS NULL)", name="previous_secret_ends"),
    Index("ix_webhook_endpoints_owner", "owner", "created_at"),
    Index("ix_webhook_endpoints_user_id", "user_id"),
    Index("ix_webhook_endpoints_api_key_id", "api_key_id"),
)

# The outbox, and the log. `lane` is what a slow receiver holds up: its endpoint, or the place that a job's URL names.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE")),  # none: a test event
    Column("endpoint_id", Uuid, ForeignKey("webhook_endpoints.id", ondelete="CASCADE")),  # none: the job's `webhook`
    Column("event", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("tries", Integer, nullable=False, server_default=text("0")),  # since it was written or replayed
    Column("attempts", Integer, nullable=False, server_default=text("0")),  # in all
    _moment("due_at"),
    _moment("claimed_until"),
    _moment("delivered_at"),
    _moment("given_up_at"),
    Column("last_status", Integer),
    Column("last_error", Text),
    _moment("created_at", nullable=False, default=True),
    CheckConstraint("job_id IS NOT NULL OR endpoint_id IS NOT NULL", name="of_job_or_endpoint"),
    CheckConstraint("delivered_at IS NULL OR given_up_at IS NULL", name="one_end"),
    UniqueConstraint("job_id", "endpoint_id", "event"),
    Index("uq_webhook_deliveries_own", "job_id", "event", unique=True, postgresql_where=text("endpoint_id IS NULL")),
    Index("ix_webhook_deliveries_due", "lane", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("ix_webhook_deliveries_claimed", "owner", postgresql_where=text("claimed_until IS NOT NULL")),
    Index("ix_webhook_deliveries_owner", "owner", "created_at", "id"),
    Index("ix_webhook_deliveries_endpoint_id", "endpoint_id", "created_at", "id"),
    Index("ix_webhook_deliveries_settled", "created_at", postgresql_where=text("due_at IS NULL")),
)

# Written when a try begins, so that one which died is seen too: it has no outcome.
webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    Column("delivery_id", Uuid, ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True),
    Column("n", Integer, primary_key=True),
    _moment("at", nullable=False),
    Column("status", Integer),
    Column("error", Text),
    Column("seconds", Double),
)
