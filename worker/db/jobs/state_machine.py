"""The state machine of a job. Every change of `jobs.state` is one guarded UPDATE in this file (I1).

    queued -> submitting -> running -> saving -> succeeded
       ^          |            |          |
       +----------+            +----------+--> failed        queued | running (on request) -> cancelled

A conversation (kind chat) is `running` from the first text of the agent and `saving` while the jobs it started run.

Each function is one statement: the UPDATE names the states and the attempt it expects, and writes its `job_events` row
(and the webhook outbox rows, `outbox.OUTBOX`) with it. No returned row means that another process was faster: the
caller stops. A job holds a slot of its account while `holds_slot` is set: while submitting or running, and after a
cancel until upstream has finished it.
"""

import json
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, TextClause, text

from worker.core.ids import new_id
from worker.core.job_state import OPEN, UPSTREAM, JobState, sql_list
from worker.core.observability import metrics
from worker.core.observability.job_context import Origin, current_origin
from worker.core.settings import get_settings
from worker.db.accounts import accounts
from worker.db.accounts.available_credits import SET_CHARGED, SET_CHARGED_IF_TAKEN
from worker.db.accounts.concurrency import SUBMIT_KINDS
from worker.db.engine import Transaction
from worker.db.jobs import transition_metrics
from worker.db.scheduling import account_scoring, fair_queue, job_selection, selection_log
from worker.db.webhooks import outbox as webhooks_outbox


@dataclass(frozen=True, slots=True)
class NewJob:
    """A validated job before it has a row."""

    owner: str
    kind: str
    model: str
    params: dict[str, Any]
    account_ids: list[UUID]  # empty = all accounts of its caller
    avoid_accounts: list[UUID] = field(default_factory=list)  # accounts that cannot run it
    user_id: UUID | None = None
    api_key_id: UUID | None = None
    webhook_url: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    account_choice: str = "any"  # see `eligibility.CHOICES`
    usual_seconds: float | None = None  # typical duration; its progress is estimated from it
    price: int | None = None  # expected credits; None = unknown
    id: UUID = field(default_factory=new_id)


_RETURNED = f"""jobs.id, jobs.state, jobs.event_seq, jobs.attempt, jobs.account_id, jobs.group_id, jobs.save_tries,
    {transition_metrics.COLUMNS}"""


def _change(name: str, *, to: JobState, sets: str, where: str = "", webhook: bool = False) -> TextClause:
    """Return the statement of a state change. `webhook` = it also writes rows of the webhook outbox."""
    outbox = f", {webhooks_outbox.OUTBOX}" if webhook else ""
    extra = f", {webhooks_outbox.OUTBOX_COLUMNS}" if webhook else ""
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
    from_states: Collection[JobState],
    actor: str,
    note: dict[str, Any] | None = None,
    **values: Any,
) -> Row[Any] | None:
    row = tx.first(
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
    if row is not None:
        transition_metrics.record_transition(tx, row)
        if row.state in {JobState.SUCCEEDED, JobState.FAILED}:
            account_scoring.record_outcome(tx, row.account_id, row.model, code=row.error_code)
    return row


_INSERT = text(
    """INSERT INTO jobs (id, owner, user_id, api_key_id, group_id, kind, model, params, metadata, state, max_attempts,
                          due_at, nudged_at, deadline_at, account_ids, avoid_accounts, account_choice, webhook_url,
                          usual_seconds, price, turn, priority, origin, event_seq)
       VALUES (:id, :owner, :user_id, :api_key_id, :group_id, :kind, :model, CAST(:params AS jsonb),
               CAST(:metadata AS jsonb), 'queued', :max_attempts, now(), now(),
               now() + make_interval(secs => :deadline),
               CAST(:account_ids AS uuid[]), CAST(:avoid_accounts AS uuid[]), :account_choice, :webhook_url,
               :usual_seconds, :price, :turn, :priority, CAST(:origin AS jsonb), 1)"""
)
# Columns with the name and value of a field of `NewJob`.
_COPIED = ("id", "owner", "user_id", "api_key_id", "kind", "model", "account_ids", "avoid_accounts", "account_choice",
          "webhook_url", "usual_seconds", "price")  # fmt: skip
_INSERT_EVENT = text("INSERT INTO job_events (job_id, seq, to_state, actor) VALUES (:id, 1, 'queued', 'api')")


def accept(tx: Transaction, new_jobs: list[NewJob]) -> None:
    """new -> queued: insert jobs of one owner and their first events. The group id is the id of the first job."""
    settings, origin = get_settings(), json.dumps(current_origin())
    requests = [
        fair_queue.QueueRequest(job.kind, job.account_ids, job.avoid_accounts, job.account_choice) for job in new_jobs
    ]
    positions = fair_queue.assign(tx, new_jobs[0].owner, new_jobs[0].user_id, requests)
    rows = [
        {
            **{name: getattr(job, name) for name in _COPIED},
            "group_id": new_jobs[0].id,
            "params": json.dumps(job.params),
            "metadata": json.dumps(job.metadata),
            "max_attempts": settings.max_attempts,
            "deadline": settings.queue_deadline_seconds,
            "turn": position.turn,
            "priority": position.priority,
            "origin": origin,
        }
        for job, position in zip(new_jobs, positions, strict=True)
    ]
    tx.run(_INSERT, rows)
    tx.run(_INSERT_EVENT, [{"id": job.id} for job in new_jobs])
    for job in new_jobs:
        tx.on_commit(partial(metrics.count, "dreamery_jobs_accepted", job.kind, job.model))


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that only the claiming task may submit now."""

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
    origin: Origin | None
    expires_at: float  # `time.monotonic()` at which the lease expires


@dataclass(frozen=True, slots=True)
class NeedsUploads:
    """The next job of an account has references that the account lacks: the upload queue takes it."""

    id: UUID


@dataclass(frozen=True, slots=True)
class Yielded:
    """Another account that could take the job now has a clearly better score; the job stays queued."""

    id: UUID
    account_id: UUID
    kind: str


# The job was locked in this transaction by `job_selection.select_job`, the account by `accounts.lock_ready`.
_CLAIM = text(
    """/* claim */
    WITH upd AS (
        UPDATE jobs SET state = 'submitting', account_id = :account_id, holds_slot = true, attempt = attempt + 1,
            submit_key = :submit_key, event_seq = event_seq + 1, absent_since = NULL,
            due_at = clock_timestamp() + make_interval(secs => :lost_after)
        WHERE id = :id AND state = 'queued'
        RETURNING id, attempt, kind, model, params, event_seq, group_id, origin, place,
            attempt < max_attempts AS attempts_left),
    ev AS (
        INSERT INTO job_events (job_id, seq, from_state, to_state, actor, note)
        SELECT id, event_seq, 'queued', 'submitting', :actor, CAST(:note AS jsonb) FROM upd),
    pace AS (
        UPDATE accounts SET last_submit_at = clock_timestamp(),
            next_submit_at = clock_timestamp() + make_interval(secs => :gap),
            poll_due_at = least(poll_due_at, clock_timestamp() + make_interval(secs => :lease)),
            used = 1 + used * power(0.5, coalesce(extract(epoch FROM clock_timestamp() - last_submit_at), 0)
                / CAST(:half_life AS float8)),
            turns = turns || jsonb_build_object(upd.kind, jsonb_build_object(
                'place', greatest(upd.place, (turns #>> ARRAY[upd.kind, 'place'])::float8),
                'at', extract(epoch FROM clock_timestamp())))
        FROM upd WHERE accounts.id = :account_id)
    SELECT id, attempt, kind, model, params, event_seq, group_id, origin, attempts_left FROM upd"""
)


def claim_next(
    tx: Transaction,
    *,
    account_id: UUID,
    kinds: tuple[str, ...] = SUBMIT_KINDS,
    actor: str = "submit",
    wait_for_lock: bool = True,
) -> Claim | None:
    """queued -> submitting: the next job for this account, if a slot of its kind is free and the pace allows it.

    `wait_for_lock` = wait for another claim on the account to end; otherwise the account then counts as not ready.
    """
    claim = claim_or_yield(
        tx, account_id=account_id, kinds=kinds, actor=actor, wait_for_lock=wait_for_lock, may_yield=False
    )
    return claim if isinstance(claim, Claim) else None


def claim_or_yield(
    tx: Transaction,
    *,
    account_id: UUID,
    kinds: tuple[str, ...] = SUBMIT_KINDS,
    actor: str = "submit",
    can_upload: bool = True,
    wait_for_lock: bool = True,
    may_yield: bool = True,
) -> Claim | NeedsUploads | Yielded | None:
    """Like `claim_next`, but a job can stay queued and only be returned by id.

    Without `can_upload`, a job that needs uploads gives `NeedsUploads`. With `may_yield`, a job for which another
    account has a better score gives `Yielded`, unless this account already has some of its references.
    """
    account = accounts.lock_ready(tx, account_id, waits=wait_for_lock)
    selected = job_selection.select_job(tx, account, kinds, can_upload=can_upload) if account is not None else None
    if account is None or selected is None:
        return None
    if selected.needs_uploads:
        return NeedsUploads(selected.id)
    scores = {} if selected.single_account else account_scoring.rank_accounts(tx, selected.id)
    if may_yield and not selected.has_uploads:
        better = account_scoring.find_better_account(account.id, scores)
        if better is not None:
            return Yielded(selected.id, better, selected.kind)
    return _claim(tx, selected, account, actor, scores)


def _claim(
    tx: Transaction,
    selected: job_selection.Selection,
    account: accounts.AccountRow,
    actor: str,
    scores: dict[UUID, account_scoring.Score],
) -> Claim | None:
    settings = get_settings()
    submit_key, expires_at = uuid4(), time.monotonic() + settings.lease_seconds
    score = {"score": scores[account.id].as_dict()} if account.id in scores else {}
    row = tx.first(
        _CLAIM,
        {
            "id": selected.id,
            "account_id": account.id,
            "submit_key": submit_key,
            "lease": settings.lease_seconds,
            "lost_after": settings.lease_seconds + settings.unclear_grace_seconds,
            "gap": 60 / account.submits_per_minute,
            "half_life": account_scoring.HALF_LIFE_SECONDS,
            "actor": actor,
            "note": json.dumps({"account": account.label, **score, **({"own": True} if account.user_id else {})}),
        },
    )
    if row is None:
        return None
    if not selected.single_account:
        selection_log.record_passed_over(tx, row.id, row.event_seq, account.id, scores)
    return Claim(**row._mapping, submit_key=submit_key, account=account, expires_at=expires_at)  # noqa: SLF001


_MARK_RUNNING = _change(
    "mark_running",
    to=JobState.RUNNING,
    sets="""upstream_id = :upstream_id, submitted_at = clock_timestamp(), absent_since = NULL,
            queue_position = :queue_position, forecast_seconds = :forecast_seconds,
            deadline_at = clock_timestamp() + make_interval(secs =>
                CASE jobs.kind WHEN 'video' THEN :video_deadline ELSE :deadline END)""",
    webhook=True,
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
    deadline: float | None = None,
) -> Row[Any] | None:
    """submitting -> running: upstream has the job. Called by submit, by poll for a submit key that upstream knows, and
    by converse at the first text of the agent (with its own `deadline` in seconds).
    """
    return _apply(
        tx,
        _MARK_RUNNING,
        job_id=job_id,
        attempt=attempt,
        from_states=(JobState.SUBMITTING,),
        actor=actor,
        upstream_id=upstream_id,
        queue_position=queue_position,
        forecast_seconds=forecast_seconds,
        deadline=deadline or get_settings().image_deadline_seconds,
        video_deadline=get_settings().video_deadline_seconds,
        event="job.started",
        note={"upstream_id": upstream_id},
    )


_REQUEUE = _change(
    "requeue",
    to=JobState.QUEUED,
    where="AND cancel_requested_at IS NULL AND (NOT :lapsed_only OR due_at <= clock_timestamp())",
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
    lapsed_only: bool = False,
) -> Row[Any] | None:
    """submitting -> queued: certainly not accepted (submit), unknown upstream after the grace period (poll), or a
    conversation that was never sent (dispatch, `lapsed_only`).

    `avoid` = an account that refused it; `counts` = whether this uses up one of the job's attempts. If a cancel was
    requested, the job is cancelled instead.
    """
    note = {"reason": reason, "delay_seconds": round(delay, 1), "code": code, "detail": detail, "account": account}
    row = _apply(
        tx,
        _REQUEUE,
        job_id=job_id,
        attempt=attempt,
        from_states=(JobState.SUBMITTING,),
        actor=actor,
        delay=delay,
        avoid=avoid,
        give_back=0 if counts else 1,
        lapsed_only=lapsed_only,
        note={key: value for key, value in note.items() if value is not None},
    )
    return row or _cancel(tx, job_id=job_id, from_states=(JobState.SUBMITTING,), attempt=attempt, actor=actor)


_MARK_SAVING = _change(
    "mark_saving",
    to=JobState.SAVING,
    sets="""holds_slot = false, result_refs = CAST(:refs AS jsonb), due_at = clock_timestamp(),
            save_tries = 0, nudged_at = clock_timestamp(),
            ready_items = :items, progress = greatest(jobs.progress, 95), queue_position = NULL,
            deadline_at = clock_timestamp() + make_interval(secs => :deadline)""",
)


def mark_saving(tx: Transaction, *, job_id: UUID, attempt: int, refs: list[dict[str, Any]]) -> Row[Any] | None:
    """running -> saving: upstream has finished; `refs` locate its results."""
    return _apply(
        tx,
        _MARK_SAVING,
        job_id=job_id,
        attempt=attempt,
        from_states=(JobState.RUNNING,),
        actor="poll",
        refs=json.dumps(refs),
        items=len(refs),
        deadline=get_settings().save_deadline_seconds,
        note={"items": len(refs)},
    )


_MARK_SUCCEEDED = _change(
    "mark_succeeded",
    to=JobState.SUCCEEDED,
    where="AND EXISTS (SELECT 1 FROM files WHERE files.job_id = jobs.id)",
    sets=f"finished_at = clock_timestamp(), progress = 100, result_refs = NULL, {SET_CHARGED}",
    webhook=True,
)


def mark_succeeded(
    tx: Transaction, *, job_id: UUID, attempt: int, stored: int, expected: int, remarks: list[str] | None = None
) -> Row[Any] | None:
    """saving -> succeeded: its files have rows (written in this transaction). `remarks`: what is missing and why."""
    return _apply(
        tx,
        _MARK_SUCCEEDED,
        job_id=job_id,
        attempt=attempt,
        from_states=(JobState.SAVING,),
        actor="save",
        event="job.completed",
        note={"files": stored, "wanted": expected, **({"remarks": remarks} if remarks else {})},
    )


_MARK_FAILED = _change(
    "mark_failed",
    to=JobState.FAILED,
    where="""AND (NOT :overdue_only OR deadline_at <= clock_timestamp())
             AND (NOT :lapsed_only OR due_at <= clock_timestamp())""",
    sets="""finished_at = clock_timestamp(), error_code = :code, error_message = :message, holds_slot = false,
            queue_position = NULL, """
    + SET_CHARGED_IF_TAKEN,
    webhook=True,
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
    account: str | None = None,
    from_states: Collection[JobState] = OPEN,
    overdue_only: bool = False,
    lapsed_only: bool = False,
) -> Row[Any] | None:
    """Any open state -> failed. `account` = the label of the account that refused it.

    `overdue_only` and `lapsed_only` check the deadline and the lease again under the lock (dispatch).
    """
    note = {"code": code, "detail": detail, "account": account}
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
        lapsed_only=lapsed_only,
        event="job.failed",
        note={key: value for key, value in note.items() if value},
    )


_CANCEL = _change(
    "cancel",
    to=JobState.CANCELLED,
    # A running job is cancelled only on request. It keeps its slot, because upstream has no cancel call and continues.
    # A conversation ends when its stream is closed.
    where="AND (state = 'queued' OR cancel_requested_at IS NOT NULL)",
    sets="""finished_at = clock_timestamp(), queue_position = NULL,
            holds_slot = (old.state = 'running' AND jobs.kind <> 'chat'),
            cancel_requested_at = coalesce(jobs.cancel_requested_at, clock_timestamp()), """
    + SET_CHARGED_IF_TAKEN,
    webhook=True,
)


def _cancel(
    tx: Transaction, *, job_id: UUID, from_states: Collection[JobState], attempt: int | None, actor: str
) -> Row[Any] | None:
    return _apply(
        tx,
        _CANCEL,
        job_id=job_id,
        attempt=attempt,
        from_states=from_states,
        actor=actor,
        code=None,
        event="job.cancelled",
    )


def cancel(tx: Transaction, job_id: UUID) -> Row[Any] | None:
    """queued -> cancelled at once. For a submitting or running job only record the request, for poll and requeue."""
    row = _cancel(tx, job_id=job_id, from_states=(JobState.QUEUED,), attempt=None, actor="api")
    if row is None:
        tx.run(
            text(
                """UPDATE jobs SET cancel_requested_at = clock_timestamp()
                   WHERE id = :id AND cancel_requested_at IS NULL AND state = ANY(:open)"""
            ),
            {"id": job_id, "open": list(UPSTREAM)},
        )
    return row


def mark_cancelled(tx: Transaction, *, job_id: UUID, attempt: int, actor: str = "poll") -> Row[Any] | None:
    """running -> cancelled on request. The slot stays taken until upstream has finished the job (`release_slot`)."""
    return _cancel(tx, job_id=job_id, from_states=(JobState.RUNNING,), attempt=attempt, actor=actor)


# --- conversations ---

_MARK_COLLECTING = _change(
    "mark_collecting",
    to=JobState.SAVING,
    where="AND kind = 'chat'",
    sets="""holds_slot = false, progress = greatest(jobs.progress, 50), save_tries = 0,
            deadline_at = clock_timestamp() + make_interval(secs => :deadline)""",
)
_MARK_ANSWERED = _change(
    "mark_answered",
    to=JobState.SUCCEEDED,
    where=f"""AND kind = 'chat' AND NOT EXISTS (
                  SELECT 1 FROM jobs child WHERE child.parent_id = jobs.id AND child.state IN {sql_list(OPEN)})""",
    sets="finished_at = clock_timestamp(), progress = 100",
    webhook=True,
)


def mark_collecting(
    tx: Transaction, *, job_id: UUID, attempt: int, deadline: float, characters: int
) -> Row[Any] | None:
    """running -> saving: the reply of the agent is complete; the jobs it started may still run."""
    return _apply(
        tx,
        _MARK_COLLECTING,
        job_id=job_id,
        attempt=attempt,
        from_states=(JobState.RUNNING,),
        actor="converse",
        deadline=deadline,
        note={"characters": characters},
    )


def mark_answered(tx: Transaction, *, job_id: UUID, actor: str) -> Row[Any] | None:
    """saving -> succeeded: a conversation without open jobs."""
    return _apply(
        tx,
        _MARK_ANSWERED,
        job_id=job_id,
        attempt=None,
        from_states=(JobState.SAVING,),
        actor=actor,
        event="job.completed",
    )


# A job that the agent started upstream is already running. It may exceed the account's slots; the claim counts it, so
# no other job is added until a slot is free.
_ADOPT = text(
    """/* adopt_child */
    WITH parent AS (
        UPDATE jobs SET event_seq = event_seq + 1 WHERE id = :parent_id AND kind = 'chat'
            AND NOT EXISTS (SELECT 1 FROM jobs known WHERE known.submit_key = :submit_key)
        RETURNING id, event_seq, state, owner, user_id, api_key_id, model, account_id, account_ids, origin),
    child AS (
        INSERT INTO jobs (id, owner, user_id, api_key_id, group_id, parent_id, kind, model, params, state, attempt,
                          max_attempts, due_at, deadline_at, account_ids, account_id, holds_slot, submit_key,
                          upstream_id, submitted_at, origin, event_seq)
        SELECT :id, owner, user_id, api_key_id, :id, id, :kind, model, CAST(:params AS jsonb), 'running', 1, 1,
               clock_timestamp(), clock_timestamp() + make_interval(secs => :deadline), account_ids, account_id, true,
               :submit_key, :upstream_id, clock_timestamp(), origin, 1
        FROM parent ON CONFLICT (submit_key) DO NOTHING RETURNING id, state),
    ev AS (
        INSERT INTO job_events (job_id, seq, from_state, to_state, actor, note)
        SELECT c.id, 1, NULL, c.state, 'converse', CAST(:note AS jsonb) FROM child c
        UNION ALL SELECT p.id, p.event_seq, p.state, p.state, 'converse',
            jsonb_build_object('started', replace(CAST(:id AS text), '-', ''), 'kind', CAST(:kind AS text))
        FROM parent p)
    SELECT parent.id, parent.state, parent.event_seq, parent.account_id, child.id AS child_id FROM parent, child"""
)


def adopt_child(
    tx: Transaction, *, parent_id: UUID, kind: str, submit_key: UUID, upstream_id: str, params: dict[str, Any]
) -> Row[Any] | None:
    """-> running: insert a job that a conversation started upstream; polls finish it. None if it exists already.

    The returned row is the parent's new event, which names the child.
    """
    settings = get_settings()
    values = {"id": new_id(), "parent_id": parent_id, "kind": kind, "submit_key": submit_key}
    values |= {"upstream_id": upstream_id, "params": json.dumps(params)}
    values["deadline"] = settings.video_deadline_seconds if kind == "video" else settings.image_deadline_seconds
    return tx.first(_ADOPT, {**values, "note": json.dumps({"upstream_id": upstream_id})})
