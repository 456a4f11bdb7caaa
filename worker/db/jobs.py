"""The state machine of a job. Every change of `jobs.state` is one guarded UPDATE in this file, and nowhere else (I1).

    queued -> submitting -> running -> saving -> succeeded
       ^          |            |          |
       +----------+            +----------+--> failed        queued | running (wish) -> cancelled

Each function is one statement: the UPDATE names the states and the attempt it expects and writes its `job_events` row
(and the webhook outbox row of a final state) with it. No row back means somebody was faster: the caller stops.
A job holds a slot of its account while `holds_slot`: submitting, running, or cancelled here but still drawn upstream.
"""

import json
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, TextClause, text

from worker.core.ids import new_id
from worker.core.settings import get_settings
from worker.db import accounts
from worker.db.engine import Transaction

OPEN_STATES = ("queued", "submitting", "running", "saving")
FINAL_STATES = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class NewJob:
    """A validated job before it has a row."""

    owner: str
    kind: str
    model: str
    params: dict[str, Any]
    account_ids: list[UUID]
    user_id: UUID | None = None
    api_key_id: UUID | None = None
    webhook_url: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    usual_seconds: float | None = None  # what such jobs take; its progress is told by it
    id: UUID = field(default_factory=new_id)


_RETURNED = (
    "jobs.id, jobs.state, jobs.event_seq, jobs.attempt, jobs.kind, jobs.account_id, jobs.group_id, jobs.save_tries"
)


def _change(name: str, *, to: str, sets: str, where: str = "", final: bool = False) -> TextClause:
    """The one shape of a state change. `to` is a literal from this file, never user input."""
    outbox = (
        """, hook AS (
            INSERT INTO webhook_deliveries (id, job_id, event, url, owner, due_at)
            SELECT gen_random_uuid(), upd.id, :event, upd.webhook_url, upd.owner, now()
            FROM upd WHERE upd.webhook_url IS NOT NULL ON CONFLICT (job_id, event) DO NOTHING)"""
        if final
        else ""
    )
    extra = ", jobs.webhook_url, jobs.owner" if final else ""
    sql = f"""/* {name} */
        WITH old AS (
            SELECT id, state FROM jobs
            WHERE id = :id AND state = ANY(:from_states) AND (CAST(:attempt AS integer) IS NULL OR attempt = :attempt)
            {where} FOR NO KEY UPDATE),
        upd AS (
            UPDATE jobs SET state = '{to}', event_seq = jobs.event_seq + 1 {"," if sets else ""} {sets}
            FROM old WHERE jobs.id = old.id
            RETURNING {_RETURNED}, old.state AS old_state {extra}),
        ev AS (
            INSERT INTO job_events (job_id, seq, from_state, to_state, actor, note)
            SELECT id, event_seq, old_state, state, :actor, CAST(:note AS jsonb) FROM upd)
        {outbox}
        SELECT * FROM upd"""
    return text(sql)


def _apply(
    tx: Transaction,
    statement: TextClause,
    *,
    job_id: UUID,
    attempt: int | None,
    from_states: tuple[str, ...],
    actor: str,
    note: dict[str, Any] | None = None,
    **values: Any,
) -> Row[Any] | None:
    return tx.first(
        statement,
        {
            "id": job_id,
            "attempt": attempt,
            "from_states": list(from_states),
            "actor": actor,
            "note": json.dumps(note or {}),
            **values,
        },
    )


_INSERT = text(
    """INSERT INTO jobs (id, owner, user_id, api_key_id, group_id, kind, model, params, metadata, state, max_attempts,
                          due_at, nudged_at, deadline_at, account_ids, webhook_url, usual_seconds, event_seq)
       VALUES (:id, :owner, :user_id, :api_key_id, :group_id, :kind, :model, CAST(:params AS jsonb),
               CAST(:metadata AS jsonb), 'queued', :max_attempts, now(), now(),
               now() + make_interval(secs => :deadline),
               CAST(:account_ids AS uuid[]), :webhook_url, :usual_seconds, 1)"""
)
_INSERT_EVENT = text("INSERT INTO job_events (job_id, seq, to_state, actor) VALUES (:id, 1, 'queued', 'api')")


def accept(tx: Transaction, new_jobs: list[NewJob]) -> None:
    """new -> queued: the rows and their first events. The first job's id names the group."""
    settings = get_settings()
    rows = [
        {
            "id": job.id,
            "owner": job.owner,
            "user_id": job.user_id,
            "api_key_id": job.api_key_id,
            "group_id": new_jobs[0].id,
            "kind": job.kind,
            "model": job.model,
            "params": json.dumps(job.params),
            "metadata": json.dumps(job.metadata),
            "max_attempts": settings.max_attempts,
            "deadline": settings.queue_deadline_seconds,
            "account_ids": job.account_ids,
            "webhook_url": job.webhook_url,
            "usual_seconds": job.usual_seconds,
        }
        for job in new_jobs
    ]
    tx.run(_INSERT, rows)
    tx.run(_INSERT_EVENT, [{"id": job.id} for job in new_jobs])


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this step, and nobody else, may submit now."""

    id: UUID
    attempt: int
    kind: str
    model: str
    params: dict[str, Any]
    submit_key: UUID
    account: accounts.AccountRow
    attempts_left: bool
    event_seq: int
    group_id: UUID
    until: float  # `time.monotonic()` at which others may take it for lost


# The count stands in a statement of its own, after the one that locked the account: in the locking statement it would
# read a snapshot from before the lock and let two claims into the last slot. `clock_timestamp()`, because `now()` is
# when the transaction began, possibly before a wait for that lock.
_CLAIM = text(
    """/* claim_next */
    WITH used AS MATERIALIZED (
        SELECT count(*) AS n FROM jobs WHERE account_id = :account_id AND holds_slot AND kind = :kind),
    pick AS (
        SELECT id FROM jobs
        WHERE state = 'queued' AND kind = :kind AND due_at <= clock_timestamp() AND cancel_requested_at IS NULL
          AND (CAST(:account_id AS uuid) = ANY(account_ids) OR (:pool AND account_ids = '{}'))
          AND NOT (CAST(:account_id AS uuid) = ANY(avoid_accounts))
          AND (SELECT n FROM used) < :slots
        ORDER BY priority DESC, id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED),
    upd AS (
        UPDATE jobs SET state = 'submitting', account_id = :account_id, holds_slot = true, attempt = attempt + 1,
            submit_key = :submit_key, event_seq = event_seq + 1, absent_since = NULL,
            due_at = clock_timestamp() + make_interval(secs => :lost_after)
        FROM pick WHERE jobs.id = pick.id
        RETURNING jobs.id, jobs.attempt, jobs.kind, jobs.model, jobs.params, jobs.event_seq, jobs.group_id,
            jobs.attempt < jobs.max_attempts AS attempts_left),
    ev AS (
        INSERT INTO job_events (job_id, seq, from_state, to_state, actor, note)
        SELECT id, event_seq, 'queued', 'submitting', 'submit', CAST(:note AS jsonb) FROM upd),
    pace AS (
        UPDATE accounts SET last_submit_at = clock_timestamp(),
            next_submit_at = clock_timestamp() + make_interval(secs => :gap),
            poll_due_at = least(poll_due_at, clock_timestamp() + make_interval(secs => :lease))
        WHERE id = :account_id AND EXISTS (SELECT 1 FROM upd))
    SELECT * FROM upd"""
)


def claim_next(tx: Transaction, *, account_id: UUID, kind: str = "image") -> Claim | None:
    """queued -> submitting: the oldest job this account may run, if a slot is free and the pace allows."""
    settings = get_settings()
    account = accounts.lock_ready(tx, account_id)
    if account is None:
        return None
    submit_key, until = uuid4(), time.monotonic() + settings.lease_seconds
    row = tx.first(
        _CLAIM,
        {
            "account_id": account.id,
            "pool": account.pool,
            "kind": kind,
            "slots": account.max_images,
            "submit_key": submit_key,
            "lease": settings.lease_seconds,
            "lost_after": settings.lease_seconds + settings.unclear_grace_seconds,
            "gap": 60 / account.submits_per_minute,
            "note": json.dumps({"account": account.label}),
        },
    )
    if row is None:
        return None
    return Claim(
        id=row.id,
        attempt=row.attempt,
        kind=row.kind,
        model=row.model,
        params=row.params,
        submit_key=submit_key,
        account=account,
        attempts_left=row.attempts_left,
        event_seq=row.event_seq,
        group_id=row.group_id,
        until=until,
    )


_MARK_RUNNING = _change(
    "mark_running",
    to="running",
    sets="""upstream_id = :upstream_id, submitted_at = clock_timestamp(), absent_since = NULL,
            queue_position = :queue_position, forecast_seconds = :forecast_seconds,
            deadline_at = clock_timestamp() + make_interval(secs => :deadline)""",
)


def mark_running(
    tx: Transaction,
    *,
    job_id: UUID,
    attempt: int,
    upstream_id: str,
    actor: str,
    queue_position: int | None = None,
    forecast_seconds: int | None = None,
) -> Row[Any] | None:
    """submitting -> running: upstream has the job. Called by submit, or by poll for a key that upstream knows."""
    return _apply(
        tx,
        _MARK_RUNNING,
        job_id=job_id,
        attempt=attempt,
        from_states=("submitting",),
        actor=actor,
        upstream_id=upstream_id,
        queue_position=queue_position,
        forecast_seconds=forecast_seconds,
        deadline=get_settings().image_deadline_seconds,
        note={"upstream_id": upstream_id},
    )


_REQUEUE = _change(
    "requeue",
    to="queued",
    where="AND cancel_requested_at IS NULL",
    sets="""holds_slot = false, due_at = clock_timestamp() + make_interval(secs => :delay), submit_key = NULL,
            account_id = NULL, absent_since = NULL, nudged_at = NULL, max_attempts = jobs.max_attempts + :give_back,
            avoid_accounts = CASE WHEN CAST(:avoid AS uuid) IS NULL THEN jobs.avoid_accounts
                                  ELSE array_append(jobs.avoid_accounts, CAST(:avoid AS uuid)) END""",
)


def requeue(
    tx: Transaction,
    *,
    job_id: UUID,
    attempt: int,
    actor: str,
    reason: str,
    delay: float,
    code: str | None = None,
    detail: str | None = None,
    account: str | None = None,
    avoid: UUID | None = None,
    counts: bool = True,
) -> Row[Any] | None:
    """submitting -> queued: surely not accepted (submit), or unknown upstream after the grace (poll).

    `avoid` = an account that refused it; `counts` = whether the try uses up one of the job's attempts. A job that
    somebody wished to cancel is cancelled instead.
    """
    note = {"reason": reason, "delay_seconds": round(delay, 1), "code": code, "detail": detail, "account": account}
    row = _apply(
        tx,
        _REQUEUE,
        job_id=job_id,
        attempt=attempt,
        from_states=("submitting",),
        actor=actor,
        delay=delay,
        avoid=avoid,
        give_back=0 if counts else 1,
        note={key: value for key, value in note.items() if value is not None},
    )
    return row or _cancel(tx, job_id=job_id, from_states=("submitting",), attempt=attempt, actor=actor)


_MARK_SAVING = _change(
    "mark_saving",
    to="saving",
    sets="""holds_slot = false, result_refs = CAST(:refs AS jsonb), due_at = clock_timestamp(),
            save_tries = 0, nudged_at = clock_timestamp(),
            ready_items = :items, progress = greatest(jobs.progress, 95), queue_position = NULL,
            deadline_at = clock_timestamp() + make_interval(secs => :deadline)""",
)


def mark_saving(tx: Transaction, *, job_id: UUID, attempt: int, refs: list[dict[str, Any]]) -> Row[Any] | None:
    """running -> saving: upstream is done; `refs` say where its results are."""
    return _apply(
        tx,
        _MARK_SAVING,
        job_id=job_id,
        attempt=attempt,
        from_states=("running",),
        actor="poll",
        refs=json.dumps(refs),
        items=len(refs),
        deadline=get_settings().save_deadline_seconds,
        note={"items": len(refs)},
    )


_MARK_SUCCEEDED = _change(
    "mark_succeeded",
    to="succeeded",
    where="AND EXISTS (SELECT 1 FROM files WHERE files.job_id = jobs.id)",
    sets="finished_at = clock_timestamp(), progress = 100, result_refs = NULL",
    final=True,
)


def mark_succeeded(tx: Transaction, *, job_id: UUID, attempt: int, stored: int, wanted: int) -> Row[Any] | None:
    """saving -> succeeded: its files have rows (written in this transaction)."""
    return _apply(
        tx,
        _MARK_SUCCEEDED,
        job_id=job_id,
        attempt=attempt,
        from_states=("saving",),
        actor="save",
        event="job.completed",
        note={"files": stored, "wanted": wanted},
    )


_MARK_FAILED = _change(
    "mark_failed",
    to="failed",
    where="AND (NOT :overdue_only OR deadline_at <= clock_timestamp())",
    sets="""finished_at = clock_timestamp(), error_code = :code, error_message = :message, holds_slot = false,
            queue_position = NULL""",
    final=True,
)


def mark_failed(
    tx: Transaction,
    *,
    job_id: UUID,
    attempt: int | None,
    code: str,
    message: str,
    actor: str,
    detail: str | None = None,
    from_states: tuple[str, ...] = OPEN_STATES,
    overdue_only: bool = False,
) -> Row[Any] | None:
    """Any open state -> failed. `overdue_only` re-checks the deadline under the lock (tick)."""
    return _apply(
        tx,
        _MARK_FAILED,
        job_id=job_id,
        attempt=attempt,
        from_states=from_states,
        actor=actor,
        code=code,
        message=message,
        overdue_only=overdue_only,
        event="job.failed",
        note={"code": code, **({"detail": detail} if detail else {})},
    )


_CANCEL = _change(
    "cancel",
    to="cancelled",
    # A running job is cancelled only on a wish; it keeps its slot, for upstream has no cancel call and draws on.
    where="AND (state = 'queued' OR cancel_requested_at IS NOT NULL)",
    sets="""finished_at = clock_timestamp(), queue_position = NULL, holds_slot = (old.state = 'running'),
            cancel_requested_at = coalesce(jobs.cancel_requested_at, clock_timestamp())""",
    final=True,
)


def _cancel(
    tx: Transaction, *, job_id: UUID, from_states: tuple[str, ...], attempt: int | None, actor: str
) -> Row[Any] | None:
    return _apply(
        tx, _CANCEL, job_id=job_id, attempt=attempt, from_states=from_states, actor=actor, event="job.cancelled"
    )


def cancel(tx: Transaction, job_id: UUID) -> Row[Any] | None:
    """queued -> cancelled at once; any other open job only gets the wish, which poll and requeue carry out."""
    row = _cancel(tx, job_id=job_id, from_states=("queued",), attempt=None, actor="api")
    if row is None:
        tx.run(
            text(
                """UPDATE jobs SET cancel_requested_at = clock_timestamp()
                   WHERE id = :id AND cancel_requested_at IS NULL AND state = ANY(:open)"""
            ),
            {"id": job_id, "open": ["submitting", "running"]},
        )
    return row


def mark_cancelled(tx: Transaction, *, job_id: UUID, attempt: int) -> Row[Any] | None:
    """running -> cancelled on a wish. The slot stays taken until upstream is done with it (`release_slot`)."""
    return _cancel(tx, job_id=job_id, from_states=("running",), attempt=attempt, actor="poll")
