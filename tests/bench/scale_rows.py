"""Fills a database for `make bench ARGS=--scale`: finished jobs of the past 90 days and waiting jobs, made by SQL.

All rows are made in the server, so a million jobs with their events and files take minutes. The shape follows a busy
platform: one of 50 users has a fifth of all jobs, 20 accounts of the platform, one of each user, one job in ten is a
video, one in twelve failed or was cancelled, and one in seven was never confirmed by upstream's credit history.
"""

from typing import Any
from uuid import UUID, uuid5

import psycopg
from psycopg import sql

USERS = 50
ACCOUNTS = 20
DAYS = 90
_SPACE = UUID("6f4bb1c4-6c1b-4d57-9f6e-0d4a6c8d5a11")
HEAVY_USER = uuid5(_SPACE, "user 0")
SMALL_USER = uuid5(_SPACE, "user 1")
ACCOUNT = uuid5(_SPACE, "account 0")

_PEOPLE = """
    INSERT INTO users (id, name, role) SELECT id, name, 'member' FROM bench_users ON CONFLICT DO NOTHING;
    INSERT INTO api_keys (id, user_id, name, prefix, key_hash) SELECT id, id, name, name, name FROM bench_users ON CONFLICT DO NOTHING;
    INSERT INTO accounts (id, label, region, lookup_hash, secret, pool, user_id, next_submit_at, credits, credits_at)
        SELECT id, 'bench' || n, 'sandbox', 'bench' || n, 'bench', pool, user_id,
            now() + CASE WHEN pool THEN interval '-1 minute' ELSE interval '1 day' END, 100000000,
            now() - interval '1 minute'
        FROM bench_accounts ON CONFLICT DO NOTHING"""

# Job ids are UUIDs of version 7: 48 bits of milliseconds, the version, and bits that make them unique.
_JOB = """(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(numbers.n::text), 1, 3) || '8' ||
    substr(md5(numbers.n::text || salt), 4, 15))::uuid"""

# The words of a prompt come from lists, so that a search can match half of the jobs, few or none.
_PROMPT = """'a ' || (ARRAY['red','blue','quiet','golden','tiny','old','bright','wild'])[1 + n % 8] || ' ' ||
    (ARRAY['boat','harbour','fox','mountain','city','garden','portrait','teapot','tower'])[1 + n % 9] ||
    ' in the style of number ' || md5(n::text) || CASE WHEN n % 5000 = 17 THEN ' with a zeppelin' ELSE '' END ||
    repeat(', soft light, fine detail', 1 + (n % 6)::int)"""

_MADE = sql.SQL(
    f"""
    CREATE TEMP TABLE made AS
    WITH numbers AS MATERIALIZED (
        SELECT n, {{salt}}::text AS salt, {{begin}}::timestamptz + ({{stop}}::timestamptz - {{begin}}::timestamptz)
            * ((n - {{first}})::float8 / greatest({{count}}, 1)) AS at
        FROM generate_series({{first}}::bigint, {{first}} + {{count}} - 1) n)
    SELECT {_JOB} AS id, numbers.n, at, u.id AS user_id, u.n AS person, CASE WHEN numbers.n % 10 = 3 THEN 'video' ELSE 'image' END AS kind,
        CASE WHEN numbers.n % 12 = 0 THEN CASE WHEN numbers.n % 24 = 0 THEN 'failed' ELSE 'cancelled' END ELSE 'succeeded' END AS state,
        a.id AS account_id, {_PROMPT.replace("n %", "numbers.n %").replace("n::text", "numbers.n::text")} AS prompt
    FROM numbers
    JOIN bench_users u ON u.n = CASE WHEN numbers.n % 5 = 0 THEN 0 ELSE 1 + (numbers.n * 7919) % {USERS - 1} END
    JOIN bench_accounts a ON a.n = numbers.n % {ACCOUNTS}"""
)

_FINISHED = """
    INSERT INTO jobs (id, owner, user_id, api_key_id, group_id, kind, model, params, metadata, state, turn, attempt,
        max_attempts, due_at, deadline_at, account_ids, account_id, submit_key, upstream_id, progress, result_refs,
        error_code, error_message, created_at, submitted_at, finished_at, event_seq, usual_seconds, origin, price,
        charged, settled_at, result_count, result_seconds)
    SELECT id, 'user:' || user_id, user_id, user_id, id, kind, 'bench-model-' || n % 4,
        jsonb_build_object('order', jsonb_build_object('prompt', prompt, 'width', 1328, 'height', 1328, 'ratio', '1:1',
            'resolution', '1k', 'count', 1, 'seed', n, 'negative_prompt', '', 'sample_strength', 0.5),
            'n', 1, 'asked_model', 'bench-model'),
        CASE WHEN n % 20 = 7 THEN jsonb_build_object('project', 'p' || n % 1000) ELSE '{}' END,
        state, n / 50.0, 1, 3, at, at + interval '10 minutes', '{}', account_id, gen_random_uuid(), n::text,
        CASE WHEN state = 'succeeded' THEN 100 ELSE 50 END,
        CASE WHEN state = 'succeeded' THEN jsonb_build_array(jsonb_build_object('url', 'https://example.invalid/' || md5(n::text))) END,
        CASE WHEN state = 'failed' THEN 'content_blocked' END, CASE WHEN state = 'failed' THEN 'The content was refused.' END,
        at, at + interval '2 seconds', at + interval '20 seconds', 5, 15, '{"route": "POST /v1/images/generations"}',
        4, 4, CASE WHEN n % 7 <> 0 THEN at + interval '15 minutes' END, CASE WHEN state = 'succeeded' THEN 1 END,
        CASE WHEN state = 'succeeded' AND kind = 'video' THEN 5 END
    FROM made;
    INSERT INTO job_events (job_id, seq, at, from_state, to_state, actor)
    SELECT id, s.seq, at + make_interval(secs => s.seq * 3), s.old, s.new, 'bench'
    FROM made CROSS JOIN (VALUES (1, NULL, 'queued'), (2, 'queued', 'submitting'), (3, 'submitting', 'running'),
        (4, 'running', 'saving'), (5, 'saving', 'succeeded')) s(seq, old, new);
    INSERT INTO files (id, job_id, n, variant, key, mime, bytes, sha256, width, height, seconds, created_at)
    SELECT gen_random_uuid(), id, 0, v.variant, 'jobs/' || replace(id::text, '-', '') || '/' || v.variant,
        CASE WHEN kind = 'video' THEN 'video/mp4' ELSE 'image/webp' END, 250000, md5(n::text), 1328, 1328,
        CASE WHEN kind = 'video' THEN 5.0 END, at + interval '20 seconds'
    FROM made JOIN (VALUES ('original'), ('thumbnail')) v(variant) ON v.variant = 'original' OR kind = 'video'
    WHERE state = 'succeeded';
    INSERT INTO prompts (job_id, prompt) SELECT id, prompt FROM made;"""

# The heavy user waits in two lines (any account, only own ones), the others in one. One user in ten names the account
# of one job in three. Their own accounts have reached their pace, or their jobs would not wait.
_WAITING = """
    INSERT INTO jobs (id, owner, user_id, api_key_id, group_id, kind, model, params, state, turn, max_attempts, due_at,
        deadline_at, account_ids, account_choice, created_at, event_seq, usual_seconds, price)
    SELECT id, 'user:' || user_id, user_id, user_id, id, kind, 'bench-model-' || n % 4,
        jsonb_build_object('order', jsonb_build_object('prompt', prompt, 'width', 1328, 'height', 1328, 'ratio', '1:1',
            'resolution', '1k', 'count', 1, 'seed', n, 'negative_prompt', '', 'sample_strength', 0.5), 'n', 1),
        'queued', 1000000 + n / 50.0, 3, at, now() + interval '1 day', CASE WHEN n % 3 = 0 AND person % 10 = 1 THEN ARRAY[account_id] ELSE '{}' END,
        CASE WHEN n % 5 = 0 AND n % 2 = 0 THEN 'own' ELSE 'any' END, at, 1, 15, 4
    FROM made;
    INSERT INTO job_events (job_id, seq, at, to_state, actor) SELECT id, 1, at, 'queued', 'api' FROM made;
    INSERT INTO prompts (job_id, prompt) SELECT id, prompt FROM made;"""
# One job runs on each account of the platform.
_RUNNING = """
    UPDATE jobs SET state = 'running', holds_slot = true, attempt = 1, account_id = p.account_id, submitted_at = now(),
        submit_key = gen_random_uuid(), upstream_id = 'bench' || p.n
    FROM (SELECT j.id, j.n, a.id AS account_id
          FROM (SELECT id, row_number() OVER (ORDER BY id) - 1 AS n FROM made) j
          JOIN bench_accounts a ON a.n = j.n AND a.pool) p
    WHERE jobs.id = p.id AND NOT EXISTS (SELECT 1 FROM jobs r WHERE r.holds_slot AND r.account_id = p.account_id)"""


class Filler:
    """Adds finished and waiting jobs to a migrated database, step by step."""

    def __init__(self, database: "psycopg.Connection[Any]") -> None:
        self._database = database
        self.finished = 0
        self.waiting = 0
        database.execute("SET synchronous_commit = off")
        database.execute("SET maintenance_work_mem = '512MB'")
        database.execute("CREATE TEMP TABLE bench_users (n integer, id uuid, name text)")
        database.execute("CREATE TEMP TABLE bench_accounts (n integer, id uuid, pool boolean, user_id uuid)")
        people = [(n, uuid5(_SPACE, f"user {n}"), f"bench user {n}") for n in range(USERS)]
        shared = [(n, uuid5(_SPACE, f"account {n}"), True, None) for n in range(ACCOUNTS)]
        own = [(ACCOUNTS + n, uuid5(_SPACE, f"own {n}"), False, person) for n, person, _ in people]
        with database.cursor() as cursor:
            cursor.executemany("INSERT INTO bench_users VALUES (%s, %s, %s)", people)
            cursor.executemany("INSERT INTO bench_accounts VALUES (%s, %s, %s, %s)", [*shared, *own])
        database.execute(_PEOPLE)

    def finish_until(self, total: int) -> None:
        """Add finished jobs until there are `total`, spread over the past 90 days."""
        self._insert(_FINISHED, self.finished, total - self.finished, "f", DAYS, 0.02)
        self.finished = max(total, self.finished)

    def wait_until(self, total: int) -> None:
        """Add waiting jobs of the past hours until there are `total`; each step is younger than the one before."""
        self._insert(
            f"{_WAITING} {_RUNNING}", self.waiting, total - self.waiting, "w", 0.4 if not self.waiting else 0.3, 0.01
        )
        self.waiting = max(total, self.waiting)

    def settle_down(self) -> None:
        """Leave the tables as they are some time after such a load: vacuumed, analyzed, and written to the disk."""
        for table in ("jobs", "job_events", "files", "prompts", "accounts", "users", "api_keys"):
            self._database.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(table)))
        self._database.execute("CHECKPOINT")

    def megabytes(self) -> int:
        """Size of the database."""
        row = self._database.execute("SELECT pg_database_size(current_database()) / 1000000").fetchone()
        return int(row[0]) if row else 0

    def _insert(self, statement: str, first: int, count: int, salt: str, begin_days: float, stop_days: float) -> None:
        if count <= 0:
            return
        # Faster only if most rows are new.
        dropped = self._drop_indexes() if count > max(50_000, self.finished) else []
        moment = "now() - interval '{} days'"
        self._database.execute(
            _MADE.format(
                salt=sql.Literal(salt),
                first=sql.Literal(first),
                count=sql.Literal(count),
                begin=sql.SQL("(" + moment.format(begin_days) + ")"),
                stop=sql.SQL("(" + moment.format(stop_days) + ")"),
            )
        )
        self._database.execute(statement)
        self._database.execute("DROP TABLE made")
        for definition in dropped:
            self._database.execute(definition)

    def _drop_indexes(self) -> list[bytes]:
        """Drop the indexes that no constraint needs; return how to create them again."""
        rows = self._database.execute(
            """SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS definition FROM pg_index i
               WHERE i.indrelid = ANY(ARRAY['jobs', 'job_events', 'files', 'prompts']::regclass[]) AND NOT i.indisprimary
                 AND NOT EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conindid = i.indexrelid)"""
        ).fetchall()
        for name, _ in rows:
            self._database.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
        return [str(definition).encode() for _, definition in rows]
