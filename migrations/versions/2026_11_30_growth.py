"""Indexes and storage parameters for a million jobs, counts of results on the job row, and words of prompts."""

import sqlalchemy as sa
from alembic import op

from migrations.online import create_index, drop_index

revision: str = "0017_growth"
down_revision: str | None = "0016_failed_answers"
branch_labels: str | None = None
depends_on: str | None = None

_OPEN = "state IN ('queued', 'submitting', 'running', 'saving')"
_LINE = "hash_record_extended(ROW(owner, user_id, account_choice, account_ids, avoid_accounts, price), 0)"
_USAGE = "id, user_id, api_key_id, account_id, kind, model, state, attempt, price, charged"
_CREATED = {
    "ix_jobs_line": ("jobs", f"(kind, ({_LINE}), place, id) WHERE state = 'queued'"),
    "ix_jobs_queued_turns": ("jobs", "(owner, kind, turn) WHERE state = 'queued'"),
    "ix_jobs_user_state": ("jobs", "(user_id, id, state)"),
    "ix_jobs_open": ("jobs", f"(owner, id) INCLUDE (kind, model, state, created_at, api_key_id) WHERE {_OPEN}"),
    "ix_jobs_uncounted": ("jobs", "(id) WHERE state = 'succeeded' AND result_count IS NULL AND kind <> 'chat'"),
    "ix_jobs_finished_at": ("jobs", "(finished_at) WHERE finished_at IS NOT NULL"),
    "ix_jobs_metadata": ("jobs", "USING gin (metadata jsonb_path_ops) WHERE metadata <> '{}'"),
    "ix_jobs_usage_results": ("jobs", f"(owner, created_at) INCLUDE ({_USAGE}, result_count, result_seconds)"),
    "ix_files_kept_jobs": ("files", "(job_id) WHERE removed_at IS NULL"),
    "ix_prompts_grams": ("prompts", "USING gin (prompt_grams(prompt))"),
}
_REPLACED = {
    "ix_files_kept": ("files", "(created_at) WHERE removed_at IS NULL"),
    "ix_jobs_user_id": ("jobs", "(user_id, id)"),
    "ix_jobs_open_owner": ("jobs", f"(owner) WHERE {_OPEN}"),
    "ix_jobs_usage": ("jobs", f"(owner, created_at) INCLUDE ({_USAGE})"),
}
# Vacuum and analyze after a share of the rows that stays small when the table grows. Space for the changes of a job
# that no index contains (progress, `nudged_at`), so that they stay on their page.
_STORAGE = {
    "jobs": "fillfactor = 85, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_insert_scale_factor = 0.02, "
    "autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1",
    "job_events": "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05, "
    "autovacuum_analyze_scale_factor = 0.05",
    "files": "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05, "
    "autovacuum_analyze_scale_factor = 0.05",
    "accounts": "fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500",
    "account_marks": "fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500",
    "webhook_deliveries": "autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05",
}
# Three characters each, and two where one of them is not ASCII: Chinese words are that short. The grams of a text
# contain the grams of each of its parts.
_GRAMS = """
    CREATE FUNCTION prompt_grams(prompt text) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
        SELECT coalesce(array_agg(DISTINCT g.gram), '{}') FROM (
            SELECT w.c || w.c2 || w.c3 AS gram FROM (
                SELECT c, lead(c, 1) OVER o AS c2, lead(c, 2) OVER o AS c3
                FROM unnest(string_to_array(lower(prompt), NULL)) WITH ORDINALITY AS t(c, n)
                WINDOW o AS (ORDER BY n)) w
            UNION ALL
            SELECT w.c || w.c2 FROM (
                SELECT c, lead(c, 1) OVER o AS c2
                FROM unnest(string_to_array(lower(prompt), NULL)) WITH ORDINALITY AS t(c, n)
                WINDOW o AS (ORDER BY n)) w
            WHERE octet_length(w.c || w.c2) > 2) g
        WHERE g.gram IS NOT NULL
    $$"""


def upgrade() -> None:
    """Upgrade the schema."""
    op.add_column("jobs", sa.Column("result_count", sa.Integer()))
    op.add_column("jobs", sa.Column("result_seconds", sa.Double()))
    op.execute(_GRAMS)
    op.create_table(
        "prompts",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_prompts_job_id_jobs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name="pk_prompts"),
    )
    for table, values in _STORAGE.items():
        op.execute(f"ALTER TABLE {table} SET ({values})")
    for name, (table, definition) in _CREATED.items():
        create_index(name, table, definition)
    for name in _REPLACED:
        drop_index(name)


def downgrade() -> None:
    """Undo the upgrade."""
    for name, (table, definition) in _REPLACED.items():
        create_index(name, table, definition)
    for name in _CREATED:
        drop_index(name)
    for table, values in _STORAGE.items():
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(value.split(' = ')[0] for value in values.split(', '))})")
    op.drop_table("prompts")
    op.execute("DROP FUNCTION prompt_grams(text)")
    op.drop_column("jobs", "result_seconds")
    op.drop_column("jobs", "result_count")
