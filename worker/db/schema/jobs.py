"""Tables of jobs: the jobs, their events, the requests that made them, and conversations."""

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Double,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from worker.core.catalog.provider_data import first_provider
from worker.core.job_state import FINAL, OPEN, UNFINISHED, UPSTREAM, sql_list
from worker.db.schema.base import metadata, timestamp_column

# In the notation of Postgres, which `alembic check` compares. A priority is a head start of 20 turns.
PLACE = "(turn - ((20)::double precision * (priority)::double precision))"
# A number that jobs share if the same accounts may run them (`worker.db.accounts.queue_lines`), of functions that an
# index may use. Old processes need not know it.
LINE = (
    "hash_record_extended(ROW(owner, user_id, account_choice, account_ids, avoid_accounts, price, providers, "
    "currency, model), 0::bigint)"
)

_USAGE = ["id", "user_id", "api_key_id", "account_id", "kind", "model", "state", "attempt", "price", "charged",
          "result_count", "result_seconds", "currency"]  # fmt: skip


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
    Column("turn", Double, nullable=False, server_default=text("0")),  # see `fair_queue.py`
    Column("priority", Integer, nullable=False, server_default=text("0")),
    Column("place", Double, Computed(PLACE, persisted=True), nullable=False),  # the order of the claim
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("max_attempts", Integer, nullable=False),
    timestamp_column("due_at", nullable=False),
    timestamp_column("deadline_at", nullable=False),
    timestamp_column("nudged_at"),
    Column("account_ids", ARRAY(Uuid), nullable=False),  # accounts it may use; empty = all of its caller
    Column("account_choice", Text, nullable=False, server_default=text("'any'")),  # own accounts, the pool, or both
    Column(
        "providers", ARRAY(Text), nullable=False, server_default=text(f"'{{{first_provider()}}}'::text[]")
    ),  # that may run it
    Column("currency", Text),  # of its accounts; prices are thousandths of it; NULL = credits
    Column("account_id", Uuid, ForeignKey("accounts.id", ondelete="RESTRICT")),
    Column("holds_slot", Boolean, nullable=False, server_default=text("false")),
    Column("submit_key", Uuid, unique=True),
    Column("upstream_id", Text),
    Column("avoid_accounts", ARRAY(Uuid), nullable=False, server_default=text("'{}'::uuid[]")),
    Column("progress", Integer, nullable=False, server_default=text("0")),
    Column("queue_position", Integer),  # upstream's queue
    Column("forecast_seconds", Integer),
    timestamp_column("absent_since"),
    Column("ready_items", Integer, nullable=False, server_default=text("0")),
    Column("stable_polls", Integer, nullable=False, server_default=text("0")),
    timestamp_column("stable_since"),
    Column("save_tries", Integer, nullable=False, server_default=text("0")),
    Column("result_refs", JSONB),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("webhook_url", Text),
    timestamp_column("cancel_requested_at"),
    timestamp_column("created_at", nullable=False, default=True),
    timestamp_column("submitted_at"),
    Column("generation_seconds", Double),  # from the submit to upstream's end, as far as the polls show it
    timestamp_column("finished_at"),
    Column("event_seq", Integer, nullable=False, server_default=text("0")),
    # Typical duration when it was accepted. Fixed, because progress is computed from it and must not decrease.
    Column("usual_seconds", Double),
    Column("batch_id", Uuid),  # the batch that it is a part of
    # What holds it back before the queue (`worker/db/batches/held_jobs.py`): those of one owner and hold leave in turn.
    Column("hold", Text),
    Column("lane", Text),  # `idle` = runs only while accounts are idle; NULL = in turn
    timestamp_column("expires_at"),  # when it ends if no account has begun it, as its caller asked
    Column("origin", JSONB),  # the request that created it and its trace (`worker.core.observability.job_context`)
    Column("price", Integer),  # expected credits, set when it is accepted; NULL = unknown
    Column("charged", Integer),  # actual credits as far as known; 0 = certainly nothing
    Column("rates", JSONB),  # unit prices of its submission, if it runs for money (`worker.core.catalog.money.Rates`)
    # Why more may have been charged than is known: submit_unclear, charged_twice_possible.
    Column("charge_doubt", Text),
    Column("upstream_hint", Text),  # what a callback calls it while the answer to its submit is missing; unproved
    timestamp_column("settled_at"),  # when upstream confirmed `charged` (or that it is 0); NULL = estimated
    # Number and length of its results, set when it succeeds; NULL = not counted yet (`worker.db.users.result_counts`).
    Column("result_count", Integer),
    Column("result_seconds", Double),
    # By its owner: its files are kept permanently, except those that are not pinned themselves.
    timestamp_column("pinned_at"),
    # Set by its owner: it has favourites among its files, or all become favourites.
    Column("favourite", Boolean, nullable=False, server_default=text("false")),
    timestamp_column("edited_at"),  # when its owner last marked or deleted something of it
    timestamp_column("deleted_at"),  # by its owner: hidden, and its files are deleted
    CheckConstraint("kind IN ('image', 'video', 'chat')", name="kind"),
    CheckConstraint("account_choice IN ('any', 'own', 'pool')", name="account_choice"),
    CheckConstraint(f"state IN {sql_list(UNFINISHED | FINAL)}", name="state"),
    CheckConstraint(f"(state IN {sql_list(FINAL)}) = (finished_at IS NOT NULL)", name="terminal_iff_finished"),
    CheckConstraint(
        "state NOT IN ('submitting', 'running', 'saving') OR (account_id IS NOT NULL AND submit_key IS NOT NULL)",
        name="open_work_has_account",
    ),
    CheckConstraint("(state = 'failed') = (error_code IS NOT NULL)", name="failed_iff_error"),
    CheckConstraint(
        f"holds_slot = (state IN {sql_list(UPSTREAM)}) OR state = 'cancelled'", name="slot_while_upstream_works"
    ),
    CheckConstraint("progress BETWEEN 0 AND 100", name="progress"),
    # Explicit names, so that a query plan shows which rule it used.
    Index("ix_jobs_queue", "kind", "place", "id", postgresql_where=text("state = 'queued'")),
    Index("ix_jobs_held", "owner", "hold", "due_at", "id", postgresql_where=text("state = 'held'")),
    Index("ix_jobs_held_deadline", "deadline_at", postgresql_where=text("state = 'held'")),
    Index("ix_jobs_batch_id", "batch_id", "state", "id", postgresql_where=text("batch_id IS NOT NULL")),
    Index("ix_jobs_queue_lines", "kind", text(LINE), "place", "id", postgresql_where=text("state = 'queued'")),
    Index("ix_jobs_turns", "owner", "kind", "turn", postgresql_where=text("attempt > 0 OR state = 'queued'")),
    Index("ix_jobs_account_id", "account_id", "submitted_at", postgresql_where=text("account_id IS NOT NULL")),
    Index(
        "ix_jobs_unsettled",
        "account_id",
        "submitted_at",
        postgresql_where=text("submitted_at IS NOT NULL AND settled_at IS NULL"),
    ),
    # Ended jobs whose cost in money is not known: booked after a week.
    Index(
        "ix_jobs_unknown_cost",
        "finished_at",
        postgresql_where=text("currency IS NOT NULL AND finished_at IS NOT NULL AND settled_at IS NULL"),
    ),
    Index("ix_jobs_slots", "account_id", postgresql_where=text("holds_slot")),
    Index("ix_jobs_saving", "due_at", postgresql_where=text("state = 'saving'")),
    Index(
        "ix_jobs_deadline",
        "deadline_at",
        postgresql_where=text(f"state IN {sql_list(OPEN)}"),
    ),
    # For `names_one_of` (`worker/db/accounts/eligibility.py`). Jobs that name no account are found by their user.
    Index("ix_jobs_one_account", text("(account_ids[1])"), postgresql_where=text("cardinality(account_ids) = 1")),
    Index(
        "ix_jobs_many_accounts",
        "account_ids",
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
        postgresql_where=text("cardinality(account_ids) > 1"),
    ),
    # With the state, so that a list of finished jobs does not read the rows of what waits.
    Index("ix_jobs_user_state", "user_id", "id", "state"),
    Index(
        "ix_jobs_open",
        "owner",
        "id",
        postgresql_where=text(f"state IN {sql_list(OPEN)}"),
        postgresql_include=["kind", "model", "state", "created_at", "api_key_id"],
    ),
    Index("ix_jobs_queued_turns", "owner", "kind", "turn", postgresql_where=text("state = 'queued'")),
    Index(
        "ix_jobs_metadata",
        "metadata",
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
        postgresql_where=text("metadata <> '{}'"),
    ),
    # Covers quotas and usage reports, so that they do not read the wide rows.
    Index("ix_jobs_usage_money", "owner", "created_at", postgresql_include=_USAGE),
    # Most requests have one job, which `in_group` finds by its id: an entry here would cost each of its versions one.
    Index("ix_jobs_later_in_group", "group_id", postgresql_where=text("group_id <> id")),
    Index("ix_jobs_favourite", "user_id", "id", postgresql_where=text("favourite")),
    Index("ix_jobs_parent_id", "parent_id", postgresql_where=text("parent_id IS NOT NULL")),
    Index("ix_jobs_pinned", "owner", postgresql_where=text("pinned_at IS NOT NULL")),
    Index("ix_jobs_charge_doubt", "id", postgresql_where=text("charge_doubt IS NOT NULL")),
    Index("ix_jobs_edited_at", "edited_at", postgresql_where=text("edited_at IS NOT NULL")),
    Index("ix_jobs_deleted_at", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
    Index(
        "ix_jobs_uncounted",
        "id",
        postgresql_where=text("state = 'succeeded' AND result_count IS NULL AND kind <> 'chat'"),
    ),
    Index("ix_jobs_finished_at", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    Index("ix_jobs_succeeded", "kind", "model", text("finished_at DESC"), postgresql_where=text("state = 'succeeded'")),
)


# The creating request of a group of jobs: a repeated request joins the jobs instead of creating new ones. The holder is
# the newest HTTP request for them; it is open until its end is recorded or the lease of its process expires.
requests = Table(
    "requests",
    metadata,
    # Deferred, because concurrent duplicates race for this row, so it is inserted before the jobs.
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
    timestamp_column("accepted_at", nullable=False, default=True),
    timestamp_column("held_at", nullable=False, default=True),
    timestamp_column("gives_up_at"),  # when the holder's client disconnects, as announced
    timestamp_column("ended_at"),
    Column("ended_how", Text),
    Column("failed", Boolean, nullable=False, server_default=text("false")),  # it was answered with a failure
    timestamp_column("failure_repeated_at"),  # when the same failure was sent again, instead of a new job
    Column("body_digest", Text, nullable=False, server_default=""),  # of the body as it was sent
    CheckConstraint("(ended_at IS NULL) = (ended_how IS NULL)", name="ended_somehow"),
    CheckConstraint("ended_how IN ('answered', 'timeout', 'cut')", name="ended_how"),
    Index("uq_requests_key", "caller", "route", "key", unique=True, postgresql_where=text("key IS NOT NULL")),
    Index("ix_requests_fingerprint", "fingerprint", postgresql_where=text("key IS NULL")),
    Index("ix_requests_accepted_at", "accepted_at"),
)


# Leases of API processes, renewed every second. An open request of a dead process was cut.
api_processes = Table(
    "api_processes",
    metadata,
    Column("id", Uuid, primary_key=True),
    timestamp_column("seen_at", nullable=False, default=True),
)


job_events = Table(
    "job_events",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    timestamp_column("at", nullable=False, default=True),
    Column("from_state", Text),
    Column("to_state", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("note", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
)


# Prompts as the search reads them. Copied from the jobs by the clean-up, so that accepting and changing a job costs
# nothing; the search reads younger jobs themselves (`worker.db.jobs.prompt_search`).
prompts = Table(
    "prompts",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("prompt", Text, nullable=False),
    Index("ix_prompts_grams", text("prompt_grams(prompt)"), postgresql_using="gin"),
)


# A conversation with the agent (kind `chat`). The row is inserted just before the one call that sends it.
conversations = Table(
    "conversations",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, nullable=False),  # of the job: an attempt without a row was certainly never sent
    timestamp_column("sent_at", nullable=False, default=True),
    Column("said", Text, nullable=False, server_default=text("''")),
    Column("calls", Integer, nullable=False, server_default=text("0")),  # tool calls; those that became jobs have rows
    Column("finish", Text),  # NULL while the reply is incomplete
    timestamp_column("updated_at", nullable=False, default=True),
    CheckConstraint("finish IN ('stop', 'length')", name="finish"),
)
