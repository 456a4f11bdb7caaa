"""The state machine of a job. Every change of `jobs.state` is one guarded UPDATE in this file (I1).

    queued -> submitting -> running -> saving -> succeeded      held -> queued, held <- queued: `held_jobs.py`
       ^          |            |          |
       +----------+            +----------+--> failed        queued | running (on request) -> cancelled

A conversation (kind chat) is `running` from the first text of the agent and `saving` while the jobs it started run.

Each function is one statement: the UPDATE names the states and the attempt it expects, and writes its `job_events` row
(and the webhook outbox rows, `outbox.OUTBOX`) with it. No returned row means that another process was faster: the
caller stops. A job holds a slot of its account while `holds_slot` is set: while submitting or running, and after a
cancel until upstream has finished it.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text

from worker.core.catalog.provider_data import first_provider
from worker.core.ids import new_id
from worker.core.job_state import OPEN, JobState, sql_list
from worker.core.observability import metrics
from worker.core.observability.job_context import Origin, current_origin
from worker.core.settings import get_settings
from worker.db.accounts import lost_answers
from worker.db.accounts.available_credits import SET_CHARGED, SET_CHARGED_IF_TAKEN
from worker.db.column_values import clamp_known, finite
from worker.db.engine import Transaction
from worker.db.jobs import transition_metrics
from worker.db.scheduling import account_scoring, fair_queue
from worker.db.users.result_counts import SET_RESULT_COUNTS
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
    price: int | None = None  # expected credits, or thousandths of its currency; None = unknown
    providers: list[str] = field(default_factory=lambda: [first_provider()])  # that may run it
    currency: str | None = None  # it runs on accounts of this currency only; None = for credits
    hold: str | None = None  # what holds it before the queue (`worker/db/batches/held_jobs.py`)
    batch_id: UUID | None = None
    lane: str | None = None
    not_before: datetime | None = None  # it is held until then
    expires_at: datetime | None = None  # it fails if no account has begun it by then
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


def change_many(
    name: str,
    *,
    to: JobState,
    sets: str,
    columns: str,
    where: str = "",
    webhook: bool = False,
    returned: str = "",
) -> TextClause:
    """Return the statement of a state change of many jobs. `columns` = the columns of `input`, with types.

    The rows are locked in the order of their ids. A job that does not come back was overtaken by another process.
    """
    outbox = f", {webhooks_outbox.OUTBOX}" if webhook else ""
    extra = f", {webhooks_outbox.OUTBOX_COLUMNS}" if webhook else ""
    sql = f"""/* {name} */
        WITH input AS MATERIALIZED (
            SELECT * FROM jsonb_to_recordset(CAST(:changes AS jsonb))
                AS c(id uuid, attempt integer, note jsonb, {columns})),
        old AS (
            SELECT jobs.id, jobs.state FROM jobs JOIN input ON input.id = jobs.id AND input.attempt = jobs.attempt
            WHERE jobs.state = ANY(:from_states) {where} ORDER BY jobs.id FOR NO KEY UPDATE OF jobs),
        upd AS (
            UPDATE jobs SET state = '{to}', event_seq = jobs.event_seq + 1, {sets}
            FROM old JOIN input ON input.id = old.id WHERE jobs.id = old.id
            RETURNING {_RETURNED}, old.state AS old_state, input.note {extra} {"," if returned else ""} {returned}),
        ev AS (
            INSERT INTO job_events (job_id, seq, from_state, to_state, actor, note)
            SELECT id, event_seq, old_state, state, :actor, note FROM upd)
        {outbox}
        SELECT * FROM upd"""
    return text(sql)


def apply_many(
    tx: Transaction,
    statement: TextClause,
    changes: Sequence[dict[str, Any]],
    *,
    from_state: JobState,
    actor: str,
    **values: Any,
) -> dict[UUID, Row[Any]]:
    """Return the changed rows by job id. Jobs that another process changed before are absent."""
    if not changes:
        return {}
    rows = tx.all(statement, {"changes": json.dumps(changes), "from_states": [from_state], "actor": actor, **values})
    for row in rows:
        transition_metrics.record_transition(tx, row)
    account_scoring.record_outcomes(
        tx, [(row.account_id, row.model, row.error_code) for row in rows if row.state == JobState.SUCCEEDED]
    )
    return {row.id: row for row in rows}


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


# One statement for any number of jobs: their rows and their first events.
_INSERT = text(
    """/* accept */
    WITH new AS (
        INSERT INTO jobs (id, owner, user_id, api_key_id, group_id, kind, model, params, metadata, state, max_attempts,
                          due_at, nudged_at, deadline_at, account_ids, avoid_accounts, account_choice, webhook_url,
                          usual_seconds, price, providers, currency, turn, priority, origin, event_seq, hold, batch_id,
                          lane, expires_at)
        SELECT id, owner, user_id, api_key_id, group_id, kind, model, params, metadata,
               CASE WHEN hold IS NULL THEN 'queued' ELSE 'held' END, :max_attempts, coalesce(not_before, now()), now(),
               coalesce(expires_at, coalesce(not_before, now()) + make_interval(secs => :deadline)), account_ids,
               avoid_accounts, account_choice, webhook_url, usual_seconds, price, providers, currency, turn, priority,
               origin, 1, hold, batch_id, lane, expires_at
        FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id uuid, owner text, user_id uuid, api_key_id uuid,
            group_id uuid, kind text, model text, params jsonb, metadata jsonb, account_ids uuid[],
            avoid_accounts uuid[], account_choice text, webhook_url text, usual_seconds double precision,
            price integer, providers text[], currency text, turn double precision, priority integer, origin jsonb,
            hold text, batch_id uuid, lane text, not_before timestamptz, expires_at timestamptz)
        RETURNING id, state)
    INSERT INTO job_events (job_id, seq, to_state, actor) SELECT id, 1, state, 'api' FROM new"""
)
# Columns with the name and value of a field of `NewJob`.
_COPIED = ("id", "owner", "user_id", "api_key_id", "kind", "model", "params", "metadata", "account_ids",
          "avoid_accounts", "account_choice", "webhook_url", "usual_seconds", "price", "providers",
          "currency", "hold", "batch_id", "lane", "not_before", "expires_at")  # fmt: skip


@dataclass(frozen=True, slots=True)
class NewGroup:
    """The jobs of one request, and the origin of that request."""

    jobs: list[NewJob]
    origin: Origin


def accept(tx: Transaction, new_jobs: list[NewJob]) -> None:
    """new -> queued: insert the jobs of one request. The group id is the id of the first job."""
    accept_groups(tx, [NewGroup(new_jobs, current_origin())])


def accept_groups(tx: Transaction, groups: list[NewGroup]) -> None:
    """new -> queued, or held: insert jobs of one owner and their first events, in the order of their turns."""
    settings, new_jobs = get_settings(), [job for group in groups for job in group.jobs]
    queued = [job for job in new_jobs if job.hold is None]
    assigned = fair_queue.assign_jobs(tx, queued)
    positions = dict(zip([job.id for job in queued], assigned, strict=True))
    rows = [
        {name: getattr(job, name) for name in _COPIED}
        | {"group_id": group.jobs[0].id, "origin": group.origin}
        | {"turn": position.turn, "priority": position.priority}
        for group in groups
        for job in group.jobs
        for position in [positions.get(job.id, fair_queue.NO_POSITION)]
    ]
    values = {"max_attempts": settings.max_attempts, "deadline": settings.queue_deadline_seconds}
    tx.run(_INSERT, {"rows": json.dumps(rows, default=str), **values})
    for job in new_jobs:
        tx.on_commit(partial(metrics.count, "dreamery_jobs_accepted", job.kind, job.model))


_MARK_RUNNING = change_many(
    "mark_running",
    to=JobState.RUNNING,
    columns="upstream_id text, queue_position integer, forecast_seconds integer",
    sets="""upstream_id = input.upstream_id, submitted_at = clock_timestamp(), absent_since = NULL,
            queue_position = input.queue_position, forecast_seconds = input.forecast_seconds,
            deadline_at = clock_timestamp() + make_interval(secs =>
                CASE jobs.kind WHEN 'video' THEN :video_deadline ELSE :deadline END)""",
    webhook=True,
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that upstream has accepted."""

    job_id: UUID
    attempt: int
    upstream_id: str
    queue_position: int | None = None
    forecast_seconds: int | None = None


def mark_running_many(
    tx: Transaction, accepted: Sequence[Accepted], *, actor: str, deadline: float | None = None
) -> dict[UUID, Row[Any]]:
    """submitting -> running: upstream has the jobs. Called by submit, and by poll for submit keys that upstream knows.

    Return the changed rows; a job that is absent was overtaken. `deadline` = seconds, if not that of the kind.
    """
    settings = get_settings()
    changes = [
        {
            "id": str(job.job_id),
            "attempt": job.attempt,
            "note": {"upstream_id": job.upstream_id},
            "upstream_id": job.upstream_id,
            "queue_position": clamp_known(job.queue_position),
            "forecast_seconds": clamp_known(job.forecast_seconds),
        }
        for job in accepted
    ]
    return apply_many(
        tx,
        _MARK_RUNNING,
        changes,
        from_state=JobState.SUBMITTING,
        actor=actor,
        deadline=deadline or settings.image_deadline_seconds,
        video_deadline=settings.video_deadline_seconds,
        event="job.started",
    )


def mark_running(
    tx: Transaction, *, job_id: UUID, attempt: int, upstream_id: str, actor: str, deadline: float | None = None
) -> Row[Any] | None:
    """submitting -> running: one job, for example at the first text of the agent (with its own `deadline`)."""
    accepted = Accepted(job_id, attempt, upstream_id)
    return mark_running_many(tx, [accepted], actor=actor, deadline=deadline).get(job_id)


_REQUEUE = _change(
    "requeue",
    to=JobState.QUEUED,
    where="AND cancel_requested_at IS NULL AND (NOT :lapsed_only OR due_at <= clock_timestamp())",
    sets="""holds_slot = false, due_at = clock_timestamp() + make_interval(secs => :delay), submit_key = NULL,
            account_id = NULL, absent_since = NULL, nudged_at = NULL, upstream_id = NULL, upstream_hint = NULL,
            submitted_at = NULL, queue_position = NULL, max_attempts = jobs.max_attempts + :give_back,
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
    from_state: JobState = JobState.SUBMITTING,
) -> Row[Any] | None:
    """submitting -> queued: certainly not accepted (submit), unknown upstream after the grace period (poll), or a
    conversation that was never sent (dispatch, `lapsed_only`). `running` -> queued: it failed upstream without a
    charge, and may be tried again.

    `avoid` = an account that refused it; `counts` = whether this uses up one of the job's attempts. If a cancel was
    requested, the job is cancelled instead.
    """
    note = {"reason": reason, "delay_seconds": round(delay, 1), "code": code, "detail": detail, "account": account}
    row = _apply(
        tx,
        _REQUEUE,
        job_id=job_id,
        attempt=attempt,
        from_states=(from_state,),
        actor=actor,
        delay=delay,
        avoid=avoid,
        give_back=0 if counts else 1,
        lapsed_only=lapsed_only,
        note={key: value for key, value in note.items() if value is not None},
    )
    return row or _cancel(tx, job_id=job_id, from_states=(from_state,), attempt=attempt, actor=actor)


# What a save needs besides the columns of every change.
SAVE_COLUMNS = """jobs.params, jobs.result_refs, jobs.submit_key, jobs.upstream_id, jobs.origin, jobs.owner,
    extract(epoch FROM jobs.deadline_at - clock_timestamp()) AS seconds_left"""
_MARK_SAVING = change_many(
    "mark_saving",
    to=JobState.SAVING,
    columns="refs jsonb, seconds float8",
    sets="""holds_slot = false, result_refs = input.refs, generation_seconds = input.seconds,
            due_at = clock_timestamp() + make_interval(secs => :lease), save_tries = :tries,
            nudged_at = clock_timestamp(),
            ready_items = jsonb_array_length(input.refs), progress = greatest(jobs.progress, 95), queue_position = NULL,
            deadline_at = clock_timestamp() + make_interval(secs => :deadline)""",
    returned=SAVE_COLUMNS,
)


@dataclass(frozen=True, slots=True)
class Finished:
    """A job that upstream has finished; `refs` locate its results. `seconds` = how long it took, if known."""

    job_id: UUID
    attempt: int
    refs: list[dict[str, Any]]
    seconds: float | None = None


def mark_saving_many(
    tx: Transaction, finished: Sequence[Finished], *, claim: bool = False, actor: str = "poll"
) -> dict[UUID, Row[Any]]:
    """running -> saving: upstream has finished the jobs.

    `claim` = also claim their saves for one lease, as `progress_and_leases.claim_saves` does: the caller copies them.
    """
    changes = [
        {
            "id": str(job.job_id),
            "attempt": job.attempt,
            "note": {"items": len(job.refs)},
            "refs": job.refs,
            "seconds": finite(job.seconds),
        }
        for job in finished
    ]
    settings = get_settings()
    return apply_many(
        tx,
        _MARK_SAVING,
        changes,
        from_state=JobState.RUNNING,
        actor=actor,
        deadline=settings.save_deadline_seconds,
        lease=settings.lease_seconds if claim else 0,
        tries=int(claim),
    )


def mark_saving(
    tx: Transaction, *, job_id: UUID, attempt: int, refs: list[dict[str, Any]], seconds: float | None = None
) -> Row[Any] | None:
    """running -> saving: one job."""
    return mark_saving_many(tx, [Finished(job_id, attempt, refs, seconds)]).get(job_id)


_MARK_SUCCEEDED = change_many(
    "mark_succeeded",
    to=JobState.SUCCEEDED,
    columns="unused integer",
    where="AND EXISTS (SELECT 1 FROM files WHERE files.job_id = jobs.id)",
    sets=f"finished_at = clock_timestamp(), progress = 100, result_refs = NULL, {SET_CHARGED}, {SET_RESULT_COUNTS}",
    webhook=True,
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A job whose results are stored; `remarks` say what is missing and why."""

    job_id: UUID
    attempt: int
    stored: int
    expected: int
    remarks: Sequence[str] = ()


def mark_succeeded_many(tx: Transaction, jobs: Sequence[Stored]) -> dict[UUID, Row[Any]]:
    """saving -> succeeded: the files of the jobs have rows (written in this transaction)."""
    changes = [
        {
            "id": str(job.job_id),
            "attempt": job.attempt,
            "note": {
                "files": job.stored,
                "wanted": job.expected,
                **({"remarks": list(job.remarks)} if job.remarks else {}),
            },
        }
        for job in jobs
    ]
    return apply_many(tx, _MARK_SUCCEEDED, changes, from_state=JobState.SAVING, actor="save", event="job.completed")


def mark_succeeded(
    tx: Transaction, *, job_id: UUID, attempt: int, stored: int, expected: int, remarks: Sequence[str] = ()
) -> Row[Any] | None:
    """saving -> succeeded: one job."""
    return mark_succeeded_many(tx, [Stored(job_id, attempt, stored, expected, remarks)]).get(job_id)


_MARK_FAILED = _change(
    "mark_failed",
    to=JobState.FAILED,
    where="""AND (NOT :overdue_only OR deadline_at <= clock_timestamp())
             AND (NOT :lapsed_only OR due_at <= clock_timestamp())""",
    sets="""finished_at = clock_timestamp(), error_code = :code, error_message = :message, holds_slot = false,
            charge_doubt = CASE WHEN CAST(:code AS text) = 'submit_unclear' THEN 'submit_unclear'
                                ELSE jobs.charge_doubt END, queue_position = NULL, """
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
    where="AND (state IN ('held', 'queued') OR cancel_requested_at IS NOT NULL)",
    sets="""finished_at = clock_timestamp(), queue_position = NULL,
            holds_slot = (old.state = 'running' AND jobs.kind <> 'chat'),
            cancel_requested_at = coalesce(jobs.cancel_requested_at, clock_timestamp()), """
    + SET_CHARGED_IF_TAKEN,
    webhook=True,
)


def _cancel(
    tx: Transaction,
    *,
    job_id: UUID,
    from_states: Collection[JobState],
    attempt: int | None,
    actor: str,
    note: dict[str, Any] | None = None,
) -> Row[Any] | None:
    where: dict[str, Any] = {"job_id": job_id, "from_states": from_states, "attempt": attempt}
    return _apply(tx, _CANCEL, actor=actor, note=note, code=None, event="job.cancelled", **where)


def cancel(tx: Transaction, job_id: UUID, *, by: dict[str, Any] | None = None) -> Row[Any] | None:
    """held, queued -> cancelled at once. For a job upstream only record the request, for poll and requeue.

    `by` = who asked for it, as its event keeps it (`api/jobs/timeline/cancelling.py`).
    """
    from_states = (JobState.HELD, JobState.QUEUED)
    row = _cancel(tx, job_id=job_id, from_states=from_states, attempt=None, actor="api", note=by)
    if row is None:
        lost_answers.request_cancel(tx, job_id, by=by or {})
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
