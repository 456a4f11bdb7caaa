"""Read-only queries of jobs, for the API, the watcher, the dispatcher and the doctor."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.job_state import OPEN, JobState, in_group, sql_list
from worker.core.settings import get_settings
from worker.db.accounts import health, model_listings
from worker.db.accounts.eligibility import candidates, free_at, names_one_of, works
from worker.db.engine import Transaction
from worker.db.jobs import conversations, durations
from worker.db.jobs.conversations import AgentReply
from worker.db.jobs.durations import DurationStats
from worker.db.jobs.job_search import JobFilter as JobFilter  # noqa: PLC0414 - callers import it from here
from worker.db.jobs.job_search import filter_conditions
from worker.db.scheduling.queue_positions import Waiting, find_positions


@dataclass(frozen=True, slots=True)
class Viewer:
    """Which jobs a caller may see: those of a user, or those that list one of these accounts (I9).

    `key_root` limits a user's jobs to those of one API key and its rotations. `all_jobs` = an administrator.
    """

    user_id: UUID | None = None
    account_ids: list[UUID] = field(default_factory=list)
    key_root: UUID | None = None
    all_jobs: bool = False


@dataclass(frozen=True, slots=True)
class QueueCapacity:
    """The capacity behind the queue of a job: the accounts it may use that are ready."""

    slots: int
    busy: int
    submits_per_minute: float
    cooldown_seconds: float  # until the first of them is ready, if none is


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as its owner sees it, with its files."""

    job: Row[Any]
    files: list[Row[Any]]  # the results, in order, without those that were deleted
    position: int | None  # position in our queue, 1 = next (`scheduling/queue_positions.py`)
    variants: list[Row[Any]] = field(default_factory=list)  # thumbnails and sprite sheets of videos
    reply: AgentReply | None = None  # a conversation: the reply of the agent so far
    children: list[UUID] = field(default_factory=list)  # a conversation: the jobs it started, in order
    capacity: QueueCapacity | None = None  # of a queued job
    duration_stats: DurationStats | None = None  # of an open job: durations of similar jobs
    deleted: list[Row[Any]] = field(default_factory=list)  # results that their owner deleted; they count as usage


_JOB_COLUMNS = """id, group_id, kind, model, params, metadata, state, attempt, account_id, upstream_id, progress,
    queue_position, forecast_seconds, ready_items, error_code, error_message, webhook_url, cancel_requested_at,
    created_at, submitted_at, finished_at, event_seq, owner, user_id, api_key_id, account_ids, parent_id, usual_seconds,
    price, charged, currency, providers, settled_at, pinned_at, favourite, edited_at, origin,
    charge_doubt, batch_id, lane, hold, due_at, expires_at, place, account_choice,
    (SELECT u.retention_days FROM users u WHERE u.id = jobs.user_id) AS retention_days,
    (SELECT a.region FROM accounts a WHERE a.id = jobs.account_id) AS region,
    extract(epoch FROM clock_timestamp() - submitted_at) AS running_seconds"""


_NAMED = names_one_of("account_ids", "CAST(:account_ids AS uuid[])")


def visibility_condition(viewer: Viewer, *, deleted: bool = False) -> tuple[str, dict[str, Any]]:
    """Return the SQL condition of the jobs that a viewer may see, and its values. `deleted` = of those it deleted.

    There is one text per kind of viewer, so that each gets its own query plan.
    """
    present = f"deleted_at IS {'NOT ' if deleted else ''}NULL"
    if viewer.all_jobs:
        return present, {}
    if viewer.user_id is None:
        return f"{present} AND user_id IS NULL AND {_NAMED}", {"account_ids": viewer.account_ids}
    condition, values = f"{present} AND user_id = :user_id", {"user_id": viewer.user_id}
    if viewer.key_root is None:
        return condition, values
    keys = "SELECT id FROM api_keys WHERE id = :key_root OR root_id = :key_root"
    return f"{condition} AND api_key_id IN ({keys})", {**values, "key_root": viewer.key_root}


def _job_views(tx: Transaction, rows: list[Row[Any]]) -> list[JobView]:
    succeeded = [row.id for row in rows if row.state == JobState.SUCCEEDED]
    queued = [row.id for row in rows if row.state == JobState.QUEUED]
    by_job: dict[tuple[UUID, bool], list[Row[Any]]] = {}
    deleted: dict[UUID, list[Row[Any]]] = {}
    if succeeded:
        for item in tx.all(text("SELECT * FROM files WHERE job_id = ANY(:ids) ORDER BY job_id, n"), {"ids": succeeded}):
            if item.deleted_at is None:
                by_job.setdefault((item.job_id, item.variant == "original"), []).append(item)
            elif item.variant == "original":
                deleted.setdefault(item.job_id, []).append(item)
    chats = [row.id for row in rows if row.kind == "chat"]
    replies = conversations.find_replies(tx, chats) if chats else {}
    children = _children(tx, chats) if chats else {}
    positions = find_positions(tx, [_waiting(row) for row in rows if row.state == JobState.QUEUED])
    capacities = _capacities(tx, queued) if queued else {}
    return [
        JobView(
            job=row,
            files=by_job.get((row.id, True), []),
            position=positions.get(row.id),
            variants=by_job.get((row.id, False), []),
            reply=replies.get(row.id, AgentReply()) if row.kind == "chat" else None,
            children=children.get(row.id, []),
            capacity=capacities.get(row.id),
            duration_stats=durations.find_duration_stats(tx, row.kind, row.model, row.params)
            if row.finished_at is None
            else None,
            deleted=deleted.get(row.id, []),
        )
        for row in rows
    ]


def _waiting(row: Row[Any]) -> Waiting:
    return Waiting(row.id, row.kind, row.place, row.account_ids, row.user_id, row.account_choice)


def _children(tx: Transaction, job_ids: list[UUID]) -> dict[UUID, list[UUID]]:
    found: dict[UUID, list[UUID]] = {}
    for row in tx.all(text("SELECT id, parent_id FROM jobs WHERE parent_id = ANY(:ids) ORDER BY id"), {"ids": job_ids}):
        found.setdefault(row.parent_id, []).append(row.id)
    return found


def conversation_views(tx: Transaction, job_id: UUID) -> list[JobView]:
    """Return a conversation and then the jobs it started, in order. Does not check the viewer."""
    rows = tx.all(
        text(
            f"""SELECT {_JOB_COLUMNS} FROM jobs WHERE id = :id OR parent_id = :id
                ORDER BY parent_id IS NOT NULL, id"""
        ),
        {"id": job_id},
    )
    return _job_views(tx, rows)


# Queued jobs share few sets of usable accounts, mostly one, so accounts are counted per set and not per job.
_CAPACITIES = text(
    f"""/* queue_capacities */
    WITH queues AS (SELECT DISTINCT kind, account_ids, user_id, account_choice, providers, currency, model
        FROM jobs WHERE id = ANY(:ids)),
    counted AS (
        SELECT q.kind, q.account_ids, q.user_id, q.account_choice, q.providers, q.currency, q.model,
            count(*) FILTER (WHERE a.ready) AS ready,
            coalesce(sum(a.slots) FILTER (WHERE a.ready), 0) AS slots,
            coalesce(sum(least(a.busy, a.slots)) FILTER (WHERE a.ready), 0) AS busy,
            coalesce(sum(a.pace) FILTER (WHERE a.ready), 0) AS pace,
            coalesce(min(extract(epoch FROM a.free_at - clock_timestamp())) FILTER (WHERE NOT a.ready), 0) AS cooldown
        FROM queues q CROSS JOIN LATERAL (
            SELECT {free_at("a")} AS free_at, {works("a")} AS ready,
                CASE q.kind WHEN 'video' THEN coalesce(a.max_videos, :videos)
                            ELSE coalesce(a.max_images, :images) END AS slots,
                coalesce(a.submits_per_minute, :pace) AS pace,
                (SELECT count(*) FROM jobs s WHERE s.account_id = a.id AND s.holds_slot AND s.kind = q.kind) AS busy
            FROM {candidates("q")} WHERE a.state = 'ok') a
        GROUP BY q.kind, q.account_ids, q.user_id, q.account_choice, q.providers, q.currency, q.model)
    SELECT j.id, c.slots, c.busy, c.pace, c.cooldown
    FROM jobs j JOIN counted c USING (kind, account_ids, account_choice, providers, model)
    WHERE j.user_id IS NOT DISTINCT FROM c.user_id AND j.currency IS NOT DISTINCT FROM c.currency
        AND j.id = ANY(:ids)"""
)


def _capacities(tx: Transaction, ids: list[UUID]) -> dict[UUID, QueueCapacity]:
    settings = get_settings()
    values = {
        "ids": ids,
        "images": settings.account_max_images,
        "videos": settings.account_max_videos,
        "pace": settings.account_submits_per_minute,
    }
    return {
        row.id: QueueCapacity(
            slots=int(row.slots),
            busy=int(row.busy),
            submits_per_minute=float(row.pace),
            cooldown_seconds=max(float(row.cooldown), 0.0),
        )
        for row in tx.all(_CAPACITIES, values)
    }


def group_views(tx: Transaction, job_ids: list[UUID]) -> list[JobView]:
    """Return jobs by id, oldest first. Does not check the viewer."""
    rows = tx.all(text(f"SELECT {_JOB_COLUMNS} FROM jobs WHERE id = ANY(:ids) ORDER BY id"), {"ids": job_ids})
    return _job_views(tx, rows)


def group_members(tx: Transaction, group_id: UUID) -> list[UUID]:
    """Return the ids of the jobs of one request, oldest first, without deleted ones."""
    statement = text(f"SELECT id FROM jobs WHERE {in_group(':g')} AND deleted_at IS NULL ORDER BY id")
    return [row.id for row in tx.all(statement, {"g": group_id})]


def existing_groups(tx: Transaction, group_ids: list[UUID]) -> set[UUID]:
    """Return those of the groups that have jobs."""
    rows = tx.all(text(f"SELECT DISTINCT group_id FROM jobs WHERE {in_group('ANY(:groups)')}"), {"groups": group_ids})
    return {row.group_id for row in rows}


def job_view(tx: Transaction, job_id: UUID, viewer: Viewer) -> JobView | None:
    """Return one job; None if it does not exist or the viewer may not see it."""
    condition, values = visibility_condition(viewer)
    rows = tx.all(text(f"SELECT {_JOB_COLUMNS} FROM jobs WHERE id = :id AND {condition}"), {"id": job_id, **values})
    return _job_views(tx, rows)[0] if rows else None


def list_jobs(
    tx: Transaction, viewer: Viewer, filters: JobFilter, *, after: UUID | None, limit: int, newest_first: bool
) -> tuple[list[JobView], bool]:
    """Return one page of a caller's jobs, and whether more follow. `after` = the last id of the previous page."""
    compare, order = ("<", "DESC") if newest_first else (">", "ASC")
    condition, values = visibility_condition(viewer)
    conditions, filter_values = filter_conditions(tx, filters)
    if after is not None:
        conditions.append(f"id {compare} :after")
        values = {**values, "after": after}
    rows = tx.all(
        text(
            f"""SELECT {_JOB_COLUMNS} FROM jobs WHERE {" AND ".join([condition, *conditions])}
                ORDER BY id {order} LIMIT :limit"""
        ),
        {**values, **filter_values, "limit": limit + 1},
    )
    return _job_views(tx, rows[:limit]), len(rows) > limit


def events_after(tx: Transaction, job_id: UUID, seq: int) -> list[Row[Any]]:
    """Return the events of a job after event number `seq`."""
    return tx.all(
        text("SELECT * FROM job_events WHERE job_id = :id AND seq > :seq ORDER BY seq LIMIT 500"),
        {"id": job_id, "seq": seq},
    )


def transitions(tx: Transaction, job_id: UUID) -> list[Row[Any]]:
    """Return the state changes, faults, waits and remarks of a job in order, without progress events."""
    return tx.all(
        text(
            """SELECT seq, at, from_state, to_state, actor, note FROM job_events
               WHERE job_id = :id AND (from_state IS DISTINCT FROM to_state OR note ?| '{code,waits_for,remark}')
               ORDER BY seq LIMIT 500"""
        ),
        {"id": job_id},
    )


def current_states(tx: Transaction, job_ids: list[UUID]) -> dict[UUID, tuple[str, int]]:
    """Return state and last event number of many jobs in one query, for all waiting requests of this process.

    A request waits for a session check as for a job: its only event is its result.
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
    """Return one stored file and the owner of its job; None if it does not exist, or it or its job was deleted."""
    joined = "files f JOIN jobs j ON j.id = f.job_id"
    statement = f"SELECT f.*, j.owner FROM {joined} WHERE f.id = :id AND f.deleted_at IS NULL AND j.deleted_at IS NULL"
    return tx.first(text(statement), {"id": file_id})


def open_job_count(tx: Transaction, owner: str, *, at_most: int) -> int:
    """Return how many jobs of an owner are open, counted up to `at_most`."""
    row = tx.first(
        text(
            f"""SELECT count(*) AS n FROM (
                   SELECT 1 FROM jobs WHERE owner = :owner AND state IN {sql_list(OPEN)} LIMIT :at_most) counted"""
        ),
        {"owner": owner, "at_most": at_most},
    )
    return int(row.n) if row is not None else 0


def accounts_to_poll(tx: Transaction, *, limit: int) -> list[UUID]:
    """Return accounts whose poll is due."""
    rows = tx.all(
        text("SELECT id FROM accounts WHERE poll_due_at <= clock_timestamp() ORDER BY poll_due_at LIMIT :limit"),
        {"limit": limit},
    )
    return [row.id for row in rows]


def overdue_jobs(tx: Transaction, *, limit: int) -> list[Row[Any]]:
    """Return open jobs past their deadline."""
    return tx.all(
        text(
            f"""SELECT id, attempt, state, submit_key, state = 'queued' AND expires_at <= now() AS has_expired FROM jobs
               WHERE state IN {sql_list(OPEN)} AND deadline_at <= now()
               ORDER BY deadline_at LIMIT :limit"""
        ),
        {"limit": limit},
    )


def schema_revision(tx: Transaction) -> str | None:
    """Return the current migration of the database; None if there is none."""
    row = tx.first(text("SELECT version_num FROM alembic_version"))
    return None if row is None else str(row.version_num)


def database_check(tx: Transaction) -> dict[str, Any]:
    """Return version, schema revision, clock and account counts of the database."""
    version = tx.first(text("SELECT current_setting('server_version') AS v, extract(epoch FROM now()) AS clock"))
    by_state = tx.all(text("SELECT state, count(*) AS n FROM accounts GROUP BY state"))
    return {
        "version": version.v if version else None,
        "clock": float(version.clock) if version else None,
        "revision": schema_revision(tx),
        "accounts": {row.state: row.n for row in by_state},
        "closed_models": [f"{row.model} on {row.label} ({row.code})" for row in health.closed_models(tx, limit=10)],
        "every_session_expired": bool(model_listings.every_session_expired(tx)),
    }


def count_refusals(tx: Transaction, job_id: UUID, *, code: str) -> int:
    """Return how often accounts have refused the job with this error code."""
    row = tx.first(
        text(
            """SELECT count(*) AS n FROM job_events
               WHERE job_id = :id AND to_state = 'queued' AND note ->> 'code' = :code"""
        ),
        {"id": job_id, "code": code},
    )
    return int(row.n) if row is not None else 0
