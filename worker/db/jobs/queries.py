"""Read-only questions: what callers, the hub, the tick and the doctor want to know. Nothing here writes."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.job_state import OPEN, JobState, sql_list
from worker.core.settings import get_settings
from worker.db.accounts import model_listings
from worker.db.accounts.eligibility import candidates, free_at, works
from worker.db.engine import Transaction
from worker.db.jobs import conversations, durations
from worker.db.jobs.conversations import Spoken
from worker.db.jobs.durations import Usual


@dataclass(frozen=True, slots=True)
class Viewer:
    """Whose jobs may be seen: those of a user, or those that list one of these accounts (I9).

    `key_root` narrows a user's to those made by one line of keys. `everybody` = an administrator, who sees all.
    """

    user_id: UUID | None = None
    account_ids: list[UUID] = field(default_factory=list)
    key_root: UUID | None = None
    everybody: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """What works off the queue that a job stands in: the accounts it may use that are ready."""

    slots: int
    busy: int
    submits_per_minute: float
    rest_seconds: float  # until the first of them is ready, when none is


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as its owner sees it, with its files."""

    job: Row[Any]
    files: list[Row[Any]]  # the results themselves, in order
    position: int | None  # place in our own queue, 1 = next
    variants: list[Row[Any]] = field(default_factory=list)  # thumbnails and sprite sheets of videos
    spoken: Spoken | None = None  # a conversation: what the agent said so far
    children: list[UUID] = field(default_factory=list)  # a conversation: the jobs it started, in order
    line: Line | None = None  # of a queued job
    usual: Usual | None = None  # what jobs like it take; only of an open one


_JOB_COLUMNS = """id, group_id, kind, model, params, metadata, state, attempt, account_id, upstream_id, progress,
    queue_position, forecast_seconds, ready_items, error_code, error_message, webhook_url, cancel_requested_at,
    created_at, submitted_at, finished_at, event_seq, owner, user_id, api_key_id, account_ids, parent_id, usual_seconds,
    price, charged, settled_at, pinned_at, favourite, origin,
    (SELECT u.retention_days FROM users u WHERE u.id = jobs.user_id) AS retention_days,
    extract(epoch FROM clock_timestamp() - submitted_at) AS running_seconds"""
_POSITION = text(
    """/* queue_position */
    SELECT w.id, 1 + count(o.id) AS position FROM jobs w
    LEFT JOIN jobs o ON o.state = 'queued' AND o.kind = w.kind AND (o.place, o.id) < (w.place, w.id)
        AND (o.account_ids && w.account_ids OR (o.account_ids = '{}' AND w.account_ids = '{}' AND (
            o.user_id IS NOT DISTINCT FROM w.user_id OR (o.account_choice <> 'own' AND w.account_choice <> 'own'))))
    WHERE w.id = ANY(:ids) AND w.state = 'queued' GROUP BY w.id"""
)


def visible(viewer: Viewer) -> tuple[str, dict[str, Any]]:
    """The condition of what a viewer may see, and its values. One text per kind of viewer, so that plans fit."""
    if viewer.everybody:
        return "deleted_at IS NULL", {}
    if viewer.user_id is None:
        condition = "deleted_at IS NULL AND user_id IS NULL AND account_ids && CAST(:account_ids AS uuid[])"
        return condition, {"account_ids": viewer.account_ids}
    condition, values = "deleted_at IS NULL AND user_id = :user_id", {"user_id": viewer.user_id}
    if viewer.key_root is None:
        return condition, values
    line = "SELECT id FROM api_keys WHERE id = :key_root OR root_id = :key_root"
    return f"{condition} AND api_key_id IN ({line})", {**values, "key_root": viewer.key_root}


def _with_files(tx: Transaction, rows: list[Row[Any]]) -> list[JobView]:
    done = [row.id for row in rows if row.state == JobState.SUCCEEDED]
    waiting = [row.id for row in rows if row.state == JobState.QUEUED]
    by_job: dict[tuple[UUID, bool], list[Row[Any]]] = {}
    if done:
        for item in tx.all(text("SELECT * FROM files WHERE job_id = ANY(:ids) ORDER BY job_id, n"), {"ids": done}):
            by_job.setdefault((item.job_id, item.variant == "original"), []).append(item)
    talks = [row.id for row in rows if row.kind == "chat"]
    spoken = conversations.spoken(tx, talks) if talks else {}
    children = _children(tx, talks) if talks else {}
    positions = {row.id: row.position for row in tx.all(_POSITION, {"ids": waiting})} if waiting else {}
    lines = _lines(tx, waiting) if waiting else {}
    return [
        JobView(
            job=row,
            files=by_job.get((row.id, True), []),
            position=positions.get(row.id),
            variants=by_job.get((row.id, False), []),
            spoken=spoken.get(row.id, Spoken()) if row.kind == "chat" else None,
            children=children.get(row.id, []),
            line=lines.get(row.id),
            usual=durations.usual(tx, row.kind, row.model, row.params) if row.finished_at is None else None,
        )
        for row in rows
    ]


def _children(tx: Transaction, job_ids: list[UUID]) -> dict[UUID, list[UUID]]:
    found: dict[UUID, list[UUID]] = {}
    for row in tx.all(text("SELECT id, parent_id FROM jobs WHERE parent_id = ANY(:ids) ORDER BY id"), {"ids": job_ids}):
        found.setdefault(row.parent_id, []).append(row.id)
    return found


def talk_views(tx: Transaction, job_id: UUID) -> list[JobView]:
    """A conversation, and behind it the jobs it started, in order; for the request that made it."""
    rows = tx.all(
        text(
            f"""SELECT {_JOB_COLUMNS} FROM jobs WHERE id = :id OR parent_id = :id
                ORDER BY parent_id IS NOT NULL, id"""
        ),
        {"id": job_id},
    )
    return _with_files(tx, rows)


# Jobs that wait stand in few different lines, mostly one, so accounts are counted per line and not per job.
_LINES = text(
    f"""/* lines */
    WITH lines AS (SELECT DISTINCT kind, account_ids, user_id, account_choice FROM jobs WHERE id = ANY(:ids)),
    counted AS (
        SELECT l.kind, l.account_ids, l.user_id, l.account_choice, count(*) FILTER (WHERE a.ready) AS ready,
            coalesce(sum(a.slots) FILTER (WHERE a.ready), 0) AS slots,
            coalesce(sum(least(a.busy, a.slots)) FILTER (WHERE a.ready), 0) AS busy,
            coalesce(sum(a.pace) FILTER (WHERE a.ready), 0) AS pace,
            coalesce(min(extract(epoch FROM a.free_at - clock_timestamp())) FILTER (WHERE NOT a.ready), 0) AS rest
        FROM lines l CROSS JOIN LATERAL (
            SELECT {free_at("a")} AS free_at, {works("a")} AS ready,
                CASE l.kind WHEN 'video' THEN coalesce(a.max_videos, :videos)
                            ELSE coalesce(a.max_images, :images) END AS slots,
                coalesce(a.submits_per_minute, :pace) AS pace,
                (SELECT count(*) FROM jobs s WHERE s.account_id = a.id AND s.holds_slot AND s.kind = l.kind) AS busy
            FROM {candidates("l")} WHERE a.state = 'ok') a
        GROUP BY l.kind, l.account_ids, l.user_id, l.account_choice)
    SELECT j.id, c.slots, c.busy, c.pace, c.rest FROM jobs j JOIN counted c USING (kind, account_ids, account_choice)
    WHERE j.user_id IS NOT DISTINCT FROM c.user_id AND j.id = ANY(:ids)"""
)


def _lines(tx: Transaction, ids: list[UUID]) -> dict[UUID, Line]:
    settings = get_settings()
    values = {
        "ids": ids,
        "images": settings.account_max_images,
        "videos": settings.account_max_videos,
        "pace": settings.account_submits_per_minute,
    }
    return {
        row.id: Line(
            slots=int(row.slots),
            busy=int(row.busy),
            submits_per_minute=float(row.pace),
            rest_seconds=max(float(row.rest), 0.0),
        )
        for row in tx.all(_LINES, values)
    }


def group_views(tx: Transaction, job_ids: list[UUID]) -> list[JobView]:
    """Jobs by id, oldest first; for the request that made them, so no check of the viewer."""
    rows = tx.all(text(f"SELECT {_JOB_COLUMNS} FROM jobs WHERE id = ANY(:ids) ORDER BY id"), {"ids": job_ids})
    return _with_files(tx, rows)


def group_members(tx: Transaction, group_id: UUID) -> list[UUID]:
    """The jobs of one request, oldest first, without deleted ones."""
    wanted = text("SELECT id FROM jobs WHERE group_id = :g AND deleted_at IS NULL ORDER BY id")
    return [row.id for row in tx.all(wanted, {"g": group_id})]


def job_view(tx: Transaction, job_id: UUID, viewer: Viewer) -> JobView | None:
    """One job; None when there is none or it is a stranger's."""
    condition, values = visible(viewer)
    rows = tx.all(text(f"SELECT {_JOB_COLUMNS} FROM jobs WHERE id = :id AND {condition}"), {"id": job_id, **values})
    return _with_files(tx, rows)[0] if rows else None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """What a list of jobs is narrowed to; None = everything."""

    states: list[str] | None = None
    kinds: list[str] | None = None
    model: str | None = None
    prompt: str | None = None  # words that must be in the prompt
    favourite: bool | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    ids: list[UUID] | None = None
    group_id: UUID | None = None  # the first job of the request
    metadata: dict[str, str] | None = None  # pairs that must be there
    user_id: UUID | None = None
    account_id: UUID | None = None  # that it runs, or ran last, on


def list_jobs(
    tx: Transaction, viewer: Viewer, wanted: JobFilter, *, after: UUID | None, limit: int, newest_first: bool
) -> tuple[list[JobView], bool]:
    """One page of a caller's jobs, and whether more follow. `after` is the last id of the page before."""
    compare, order = ("<", "DESC") if newest_first else (">", "ASC")
    condition, values = visible(viewer)
    rows = tx.all(
        text(
            f"""SELECT {_JOB_COLUMNS} FROM jobs
                WHERE {condition}
                  AND (CAST(:states AS text[]) IS NULL OR state = ANY(CAST(:states AS text[])))
                  AND (CAST(:kinds AS text[]) IS NULL OR kind = ANY(CAST(:kinds AS text[])))
                  AND (CAST(:prompt AS text) IS NULL
                       OR strpos(lower(params -> 'order' ->> 'prompt'), lower(:prompt)) > 0)
                  AND (CAST(:favourite AS boolean) IS NULL OR favourite = :favourite)
                  AND (CAST(:model AS text) IS NULL OR model = :model)
                  AND (CAST(:since AS timestamptz) IS NULL OR created_at >= :since)
                  AND (CAST(:until AS timestamptz) IS NULL OR created_at < :until)
                  AND (CAST(:ids AS uuid[]) IS NULL OR id = ANY(CAST(:ids AS uuid[])))
                  AND (CAST(:group_id AS uuid) IS NULL OR group_id = :group_id)
                  AND (CAST(:pairs AS jsonb) IS NULL OR metadata @> CAST(:pairs AS jsonb))
                  AND (CAST(:of_user AS uuid) IS NULL OR user_id = :of_user)
                  AND (CAST(:account_id AS uuid) IS NULL OR account_id = :account_id)
                  AND (CAST(:after AS uuid) IS NULL OR id {compare} :after)
                ORDER BY id {order} LIMIT :limit"""
        ),
        {
            **values,
            "states": wanted.states,
            "kinds": wanted.kinds,
            "prompt": wanted.prompt,
            "favourite": wanted.favourite,
            "model": wanted.model,
            "since": wanted.created_after,
            "until": wanted.created_before,
            "ids": wanted.ids,
            "group_id": wanted.group_id,
            "pairs": json.dumps(wanted.metadata) if wanted.metadata else None,
            "of_user": wanted.user_id,
            "account_id": wanted.account_id,
            "after": after,
            "limit": limit + 1,
        },
    )
    return _with_files(tx, rows[:limit]), len(rows) > limit


def events_after(tx: Transaction, job_id: UUID, seq: int) -> list[Row[Any]]:
    """What happened to a job after event number `seq`."""
    return tx.all(
        text("SELECT * FROM job_events WHERE job_id = :id AND seq > :seq ORDER BY seq LIMIT 500"),
        {"id": job_id, "seq": seq},
    )


def transitions(tx: Transaction, job_id: UUID) -> list[Row[Any]]:
    """Every change of a job's state in order, without the notes of progress between them."""
    return tx.all(
        text(
            """SELECT seq, at, from_state, to_state, actor, note FROM job_events
               WHERE job_id = :id AND from_state IS DISTINCT FROM to_state ORDER BY seq LIMIT 500"""
        ),
        {"id": job_id},
    )


def current_states(tx: Transaction, job_ids: list[UUID]) -> dict[UUID, tuple[str, int]]:
    """State and last event number of many jobs in one query, for everybody who waits in this process.

    An account check is waited for like a job; its one event is its answer.
    """
    rows = tx.all(
        text(
            """SELECT id, state, event_seq FROM jobs WHERE id = ANY(:ids)
               UNION ALL SELECT id, state, 1 FROM account_checks WHERE id = ANY(:ids) AND state = 'succeeded'"""
        ),
        {"ids": job_ids},
    )
    return {row.id: (row.state, row.event_seq) for row in rows}


def file_row(tx: Transaction, file_id: UUID) -> Row[Any] | None:
    """One stored file; None when there is none or its job was deleted."""
    statement = "SELECT f.* FROM files f JOIN jobs j ON j.id = f.job_id WHERE f.id = :id AND j.deleted_at IS NULL"
    return tx.first(text(statement), {"id": file_id})


def open_job_count(tx: Transaction, owner: str) -> int:
    """How many jobs of an owner are not finished."""
    row = tx.first(
        text(
            f"""SELECT count(*) AS n FROM jobs
               WHERE owner = :owner AND state IN {sql_list(OPEN)}"""
        ),
        {"owner": owner},
    )
    return int(row.n) if row is not None else 0


# --- what is due (tick) ---


def accounts_to_poll(tx: Transaction, *, limit: int) -> list[UUID]:
    """Accounts whose poll time has come."""
    rows = tx.all(
        text("SELECT id FROM accounts WHERE poll_due_at <= clock_timestamp() ORDER BY poll_due_at LIMIT :limit"),
        {"limit": limit},
    )
    return [row.id for row in rows]


def overdue_jobs(tx: Transaction, *, limit: int) -> list[Row[Any]]:
    """Open jobs past their deadline."""
    return tx.all(
        text(
            f"""SELECT id, attempt, state, submit_key FROM jobs
               WHERE state IN {sql_list(OPEN)} AND deadline_at <= clock_timestamp()
               ORDER BY deadline_at LIMIT :limit"""
        ),
        {"limit": limit},
    )


def schema_revision(tx: Transaction) -> str | None:
    """The migration that the database is at."""
    row = tx.first(text("SELECT version_num FROM alembic_version"))
    return None if row is None else str(row.version_num)


def database_check(tx: Transaction) -> dict[str, Any]:
    """Version, schema revision, clock and account counts of the database."""
    version = tx.first(text("SELECT current_setting('server_version') AS v, extract(epoch FROM now()) AS clock"))
    by_state = tx.all(text("SELECT state, count(*) AS n FROM accounts GROUP BY state"))
    return {
        "version": version.v if version else None,
        "clock": float(version.clock) if version else None,
        "revision": schema_revision(tx),
        "accounts": {row.state: row.n for row in by_state},
        "every_session_expired": bool(model_listings.every_session_expired(tx)),
    }
