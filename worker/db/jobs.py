"""The state machine of a job. Every change of `jobs.state` is one guarded UPDATE in this file, and nowhere else (I1).

    queued -> submitting -> running -> saving -> succeeded
       ^          |            |          |
       +----------+            +----------+--> failed        queued | running (wish) -> cancelled

A conversation (kind chat) is `running` from the agent's first word and `saving` while the jobs it started still run.

Each function is one statement: the UPDATE names the states and the attempt it expects and writes its `job_events` row
(and the webhook outbox rows, `deliveries.OUTBOX`) with it. No row back means somebody was faster: the caller stops.
A job holds a slot of its account while `holds_slot`: submitting, running, or cancelled here but still drawn upstream.
"""

import json
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, TextClause, text

from worker.core import metrics
from worker.core.ids import new_id
from worker.core.settings import get_settings
from worker.db import accounts, deliveries, passed_over, tally
from worker.db.engine import Transaction
from worker.db.purse import PAID, PAID_IF_TAKEN, affords, credits_left
from worker.db.slots import SUBMIT_KINDS

OPEN_STATES = ("queued", "submitting", "running", "saving")
FINAL_STATES = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class NewJob:
    """A validated job before it has a row."""

    owner: str
    kind: str
    model: str
    params: dict[str, Any]
    account_ids: list[UUID]  # empty = the pool
    avoid_accounts: list[UUID] = field(default_factory=list)  # of these, those that cannot do it
    user_id: UUID | None = None
    api_key_id: UUID | None = None
    webhook_url: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    usual_seconds: float | None = None  # what such jobs take; its progress is told by it
    price: int | None = None  # credits it is expected to cost; None = not known
    id: UUID = field(default_factory=new_id)


_RETURNED = f"""jobs.id, jobs.state, jobs.event_seq, jobs.attempt, jobs.account_id, jobs.group_id, jobs.save_tries,
    {tally.COLUMNS}"""


def _change(name: str, *, to: str, sets: str, where: str = "", told: bool = False) -> TextClause:
    """The one shape of a state change. `to` is a literal from this file, never user input. `told` = webhooks hear."""
    outbox = f", {deliveries.OUTBOX}" if told else ""
    extra = f", {deliveries.OUTBOX_COLUMNS}" if told else ""
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
        tally.note_change(tx, row)
    return row


_INSERT = text(
    """INSERT INTO jobs (id, owner, user_id, api_key_id, group_id, kind, model, params, metadata, state, max_attempts,
                          due_at, nudged_at, deadline_at, account_ids, avoid_accounts, webhook_url, usual_seconds,
                          price, event_seq)
       VALUES (:id, :owner, :user_id, :api_key_id, :group_id, :kind, :model, CAST(:params AS jsonb),
               CAST(:metadata AS jsonb), 'queued', :max_attempts, now(), now(),
               now() + make_interval(secs => :deadline),
               CAST(:account_ids AS uuid[]), CAST(:avoid_accounts AS uuid[]), :webhook_url, :usual_seconds,
               :price, 1)"""
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
            "avoid_accounts": job.avoid_accounts,
            "webhook_url": job.webhook_url,
            "usual_seconds": job.usual_seconds,
            "price": job.price,
        }
        for job in new_jobs
    ]
    tx.run(_INSERT, rows)
    tx.run(_INSERT_EVENT, [{"id": job.id} for job in new_jobs])
    for job in new_jobs:
        tx.on_commit(partial(metrics.count, "dreamery_jobs_accepted", job.kind, job.model))


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


@dataclass(frozen=True, slots=True)
class ToBring:
    """The oldest job an account may run has references that are not with it yet: work for another queue."""

    id: UUID


# The count stands in a statement of its own, after the one that locked the account: in the locking statement it would
# read a snapshot from before the lock and let two claims into the last slot. `clock_timestamp()`, because `now()` is
# when the transaction began, possibly before a wait for that lock.
#
# The oldest job of each kind that has a free slot is looked up in the order of its index; the oldest of those is taken,
# those that need nothing brought first when the caller brings nothing.
# A job that the account's credits do not cover is not seen, so that a dear one is in no cheap one's way.
_CLAIM = text(
    f"""/* claim_next */
    WITH purse AS MATERIALIZED (SELECT {credits_left("a")} AS left FROM accounts a WHERE a.id = :account_id),
    used AS MATERIALIZED (
        SELECT kind, count(*) AS n FROM jobs WHERE account_id = :account_id AND holds_slot GROUP BY kind),
    free AS MATERIALIZED (
        SELECT k.kind FROM unnest(CAST(:kinds AS text[]), CAST(:slots AS integer[])) AS k(kind, most)
        LEFT JOIN used ON used.kind = k.kind WHERE k.most > coalesce(used.n, 0)),
    heads AS MATERIALIZED (
        SELECT h.id, h.priority, NOT :brings AND EXISTS (
                SELECT 1 FROM job_inputs i WHERE i.job_id = h.id AND NOT EXISTS (
                    SELECT 1 FROM input_uploads u
                    WHERE u.job_id = i.job_id AND u.n = i.n AND u.account_id = :account_id)) AS left_alone
        FROM free CROSS JOIN LATERAL (
            SELECT id, priority FROM jobs
            WHERE state = 'queued' AND kind = free.kind AND due_at <= clock_timestamp()
              AND cancel_requested_at IS NULL
              AND (CAST(:account_id AS uuid) = ANY(account_ids) OR (:pool AND account_ids = '{{}}'))
              AND NOT (CAST(:account_id AS uuid) = ANY(avoid_accounts))
              AND {affords("(SELECT purse.left FROM purse)", "price")}
            ORDER BY priority DESC, id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) h),
    pick AS (SELECT id, left_alone FROM heads ORDER BY left_alone, priority DESC, id LIMIT 1),
    upd AS (
        UPDATE jobs SET state = 'submitting', account_id = :account_id, holds_slot = true, attempt = attempt + 1,
            submit_key = :submit_key, event_seq = event_seq + 1, absent_since = NULL,
            due_at = clock_timestamp() + make_interval(secs => :lost_after)
        FROM pick WHERE jobs.id = pick.id AND NOT pick.left_alone
        RETURNING jobs.id, jobs.attempt, jobs.kind, jobs.model, jobs.params, jobs.event_seq, jobs.group_id,
            jobs.attempt < jobs.max_attempts AS attempts_left, cardinality(jobs.account_ids) AS candidates),
    ev AS (
        INSERT INTO job_events (job_id, seq, from_state, to_state, actor, note)
        SELECT id, event_seq, 'queued', 'submitting', :actor, CAST(:note AS jsonb) FROM upd),
    pace AS (
        UPDATE accounts SET last_submit_at = clock_timestamp(),
            next_submit_at = clock_timestamp() + make_interval(secs => :gap),
            poll_due_at = least(poll_due_at, clock_timestamp() + make_interval(secs => :lease))
        WHERE id = :account_id AND EXISTS (SELECT 1 FROM upd))
    SELECT pick.id AS picked, pick.left_alone, upd.* FROM pick LEFT JOIN upd ON true"""
)


def claim_next(
    tx: Transaction, *, account_id: UUID, kinds: tuple[str, ...] = SUBMIT_KINDS, actor: str = "submit"
) -> Claim | None:
    """queued -> submitting: the oldest job this account may run, if a slot of its kind is free and the pace allows."""
    claim = _claim(tx, account_id, kinds, actor, brings=True)
    return claim if isinstance(claim, Claim) else None


def claim_ready(tx: Transaction, *, account_id: UUID) -> Claim | ToBring | None:
    """Like `claim_next`, but a job whose references are not all with the account stays queued and is only named."""
    return _claim(tx, account_id, SUBMIT_KINDS, "submit", brings=False)


def _claim(
    tx: Transaction, account_id: UUID, kinds: tuple[str, ...], actor: str, *, brings: bool
) -> Claim | ToBring | None:
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
            "kinds": list(kinds),
            "slots": [account.slots[kind] for kind in kinds],
            "brings": brings,
            "submit_key": submit_key,
            "lease": settings.lease_seconds,
            "lost_after": settings.lease_seconds + settings.unclear_grace_seconds,
            "gap": 60 / account.submits_per_minute,
            "actor": actor,
            "note": json.dumps({"account": account.label}),
        },
    )
    if row is None or row.id is None:
        return ToBring(row.picked) if row is not None and row.left_alone else None
    if row.candidates != 1:
        passed_over.note(tx, row.id, row.event_seq, account.id)
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
            deadline_at = clock_timestamp() + make_interval(secs =>
                CASE jobs.kind WHEN 'video' THEN :video_deadline ELSE :deadline END)""",
    told=True,
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
    """submitting -> running: upstream has the job. Called by submit, by poll for a key that upstream knows, and by
    converse at the agent's first word (with a `deadline` of its own).
    """
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
        deadline=deadline or get_settings().image_deadline_seconds,
        video_deadline=get_settings().video_deadline_seconds,
        event="job.started",
        note={"upstream_id": upstream_id},
    )


_REQUEUE = _change(
    "requeue",
    to="queued",
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
    """submitting -> queued: surely not accepted (submit), unknown upstream after the grace (poll), or a conversation
    that was never sent (tick, `lapsed_only`).

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
        lapsed_only=lapsed_only,
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
    sets=f"finished_at = clock_timestamp(), progress = 100, result_refs = NULL, {PAID}",
    told=True,
)


def mark_succeeded(
    tx: Transaction, *, job_id: UUID, attempt: int, stored: int, wanted: int, remarks: list[str] | None = None
) -> Row[Any] | None:
    """saving -> succeeded: its files have rows (written in this transaction). `remarks`: what could not be had."""
    return _apply(
        tx,
        _MARK_SUCCEEDED,
        job_id=job_id,
        attempt=attempt,
        from_states=("saving",),
        actor="save",
        event="job.completed",
        note={"files": stored, "wanted": wanted, **({"remarks": remarks} if remarks else {})},
    )


_MARK_FAILED = _change(
    "mark_failed",
    to="failed",
    where="""AND (NOT :overdue_only OR deadline_at <= clock_timestamp())
             AND (NOT :lapsed_only OR due_at <= clock_timestamp())""",
    sets="""finished_at = clock_timestamp(), error_code = :code, error_message = :message, holds_slot = false,
            queue_position = NULL, """
    + PAID_IF_TAKEN,
    told=True,
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
    from_states: tuple[str, ...] = OPEN_STATES,
    overdue_only: bool = False,
    lapsed_only: bool = False,
) -> Row[Any] | None:
    """Any open state -> failed. `account` = the label of who refused it.

    `overdue_only` and `lapsed_only` re-check deadline and lease under the lock (tick).
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
    to="cancelled",
    # A running job is cancelled only on a wish; it keeps its slot, for upstream has no cancel call and draws on. A
    # conversation ends when its stream is closed.
    where="AND (state = 'queued' OR cancel_requested_at IS NOT NULL)",
    sets="""finished_at = clock_timestamp(), queue_position = NULL,
            holds_slot = (old.state = 'running' AND jobs.kind <> 'chat'),
            cancel_requested_at = coalesce(jobs.cancel_requested_at, clock_timestamp()), """
    + PAID_IF_TAKEN,
    told=True,
)


def _cancel(
    tx: Transaction, *, job_id: UUID, from_states: tuple[str, ...], attempt: int | None, actor: str
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


def mark_cancelled(tx: Transaction, *, job_id: UUID, attempt: int, actor: str = "poll") -> Row[Any] | None:
    """running -> cancelled on a wish. The slot stays taken until upstream is done with it (`release_slot`)."""
    return _cancel(tx, job_id=job_id, from_states=("running",), attempt=attempt, actor=actor)


# --- conversations ---

_MARK_COLLECTING = _change(
    "mark_collecting",
    to="saving",
    where="AND kind = 'chat'",
    sets="""holds_slot = false, progress = greatest(jobs.progress, 50), save_tries = 0,
            deadline_at = clock_timestamp() + make_interval(secs => :deadline)""",
)
_MARK_ANSWERED = _change(
    "mark_answered",
    to="succeeded",
    where=f"""AND kind = 'chat' AND NOT EXISTS (
                  SELECT 1 FROM jobs child WHERE child.parent_id = jobs.id AND child.state IN {OPEN_STATES})""",
    sets="finished_at = clock_timestamp(), progress = 100",
    told=True,
)


def mark_collecting(tx: Transaction, *, job_id: UUID, attempt: int, deadline: float, said: int) -> Row[Any] | None:
    """running -> saving: the agent has said all (`said` characters); the jobs it started may still run."""
    return _apply(
        tx,
        _MARK_COLLECTING,
        job_id=job_id,
        attempt=attempt,
        from_states=("running",),
        actor="converse",
        deadline=deadline,
        note={"characters": said},
    )


def mark_answered(tx: Transaction, *, job_id: UUID, actor: str) -> Row[Any] | None:
    """saving -> succeeded for a conversation none of whose jobs is open any more."""
    return _apply(
        tx, _MARK_ANSWERED, job_id=job_id, attempt=None, from_states=("saving",), actor=actor, event="job.completed"
    )


# A job that upstream started by itself comes to us running. It may exceed the account's slots, for nobody asked us; the
# claim counts it, so nothing is added until there is room again.
_ADOPT = text(
    """/* adopt_child */
    WITH parent AS (
        UPDATE jobs SET event_seq = event_seq + 1 WHERE id = :parent_id AND kind = 'chat'
            AND NOT EXISTS (SELECT 1 FROM jobs known WHERE known.submit_key = :submit_key)
        RETURNING id, event_seq, state, owner, user_id, api_key_id, model, account_id, account_ids),
    child AS (
        INSERT INTO jobs (id, owner, user_id, api_key_id, group_id, parent_id, kind, model, params, state, attempt,
                          max_attempts, due_at, deadline_at, account_ids, account_id, holds_slot, submit_key,
                          upstream_id, submitted_at, event_seq)
        SELECT :id, owner, user_id, api_key_id, :id, id, :kind, model, CAST(:params AS jsonb), 'running', 1, 1,
               clock_timestamp(), clock_timestamp() + make_interval(secs => :deadline), account_ids, account_id, true,
               :submit_key, :upstream_id, clock_timestamp(), 1
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
    """-> running: a job that a conversation started upstream; the ordinary polls finish it. None when it is known.

    The row tells the parent's news: its timeline names the child.
    """
    settings = get_settings()
    values = {"id": new_id(), "parent_id": parent_id, "kind": kind, "submit_key": submit_key}
    values |= {"upstream_id": upstream_id, "params": json.dumps(params)}
    values["deadline"] = settings.video_deadline_seconds if kind == "video" else settings.image_deadline_seconds
    return tx.first(_ADOPT, {**values, "note": json.dumps({"upstream_id": upstream_id})})
