"""Updates of open jobs that do not change the state: leases, progress, absence upstream, released slots.

Changes of state are in `state_machine.py`. The states in parentheses are the states that a function expects.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.job_state import OPEN, sql_list
from worker.core.settings import get_settings
from worker.db.accounts import polling
from worker.db.column_values import clamp_known
from worker.db.engine import Transaction
from worker.db.jobs.state_machine import SAVE_COLUMNS

_MOST_WOKEN = 2000
_DEFER_UNCLEAR = text(
    """/* mark_submit_unclear */ UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :grace)
       WHERE id = :id AND state = 'submitting' AND attempt = :attempt RETURNING account_id"""
)


def mark_submit_unclear(tx: Transaction, *, job_id: UUID, attempt: int) -> bool:
    """(submitting) The call ended without a clear result: from now on the poll may look up its submit key.

    `due_at` = when an unknown key counts as lost; until then the job keeps its slot.
    """
    row = tx.first(_DEFER_UNCLEAR, {"id": job_id, "attempt": attempt, "grace": get_settings().unclear_grace_seconds})
    if row is not None:
        polling.schedule_poll(tx, row.account_id)
    return row is not None


def renew_submit_lease(tx: Transaction, *, job_id: UUID, attempt: int, also_cancelled: bool = False) -> bool:
    """(submitting) Renew the lease of the claim; False if it is lost or a cancel was requested.

    With `also_cancelled`, a requested cancel changes nothing: the job is in flight and will be paid.
    """
    settings = get_settings()
    row = tx.first(
        text(
            """UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :lost_after)
               WHERE id = :id AND state = 'submitting' AND attempt = :attempt
                   AND (:also_cancelled OR cancel_requested_at IS NULL)
               RETURNING id"""
        ),
        {
            "id": job_id,
            "attempt": attempt,
            "also_cancelled": also_cancelled,
            "lost_after": settings.lease_seconds + settings.unclear_grace_seconds,
        },
    )
    return row is not None


# An attempt begins without results. What upstream measured of them so far is kept in the first one.
_RECORD_ARRIVED = text(
    """/* record_arrived */
    UPDATE jobs SET result_refs = jsonb_set(CAST(:refs AS jsonb), '{0,usage}', CAST(:usage AS jsonb)),
        ready_items = jsonb_array_length(CAST(:refs AS jsonb))
    WHERE id = :id AND state = 'submitting' AND attempt = :attempt RETURNING id"""
)


def record_sending(tx: Transaction, *, job_id: UUID, attempt: int) -> bool:
    """(submitting) The call that makes the results begins: an attempt without this mark has sent nothing.

    False if the claim is lost or a cancel was requested.
    """
    row = tx.first(
        text(
            """UPDATE jobs SET result_refs = '[]' WHERE id = :id AND state = 'submitting' AND attempt = :attempt
               AND cancel_requested_at IS NULL RETURNING id"""
        ),
        {"id": job_id, "attempt": attempt},
    )
    return row is not None


def record_arrived(
    tx: Transaction, *, job_id: UUID, attempt: int, refs: list[dict[str, Any]], usage: dict[str, Any]
) -> bool:
    """(submitting) Some results are there while the call that makes them is running. `refs` is not empty."""
    values = {"id": job_id, "attempt": attempt, "refs": json.dumps(refs), "usage": json.dumps(usage)}
    return tx.first(_RECORD_ARRIVED, values) is not None


def find_arrived(tx: Transaction, *, job_id: UUID, attempt: int) -> Row[Any] | None:
    """(submitting) Lock the job and return its submit key, what has arrived, and its usage; None = it is overtaken.

    `result_refs` is NULL if the call had not begun, and empty if nothing has arrived.
    """
    return tx.first(
        text(
            """SELECT submit_key, result_refs, result_refs #> '{0,usage}' AS usage FROM jobs
               WHERE id = :id AND state = 'submitting' AND attempt = :attempt FOR NO KEY UPDATE"""
        ),
        {"id": job_id, "attempt": attempt},
    )


# Locked in the order of their ids; a job that another worker is claiming is left to it.
_CLAIM_SAVES = text(
    f"""/* claim_save */
    WITH due AS (
        SELECT id FROM jobs WHERE id = ANY(:ids) AND state = 'saving' AND kind <> 'chat' AND due_at <= clock_timestamp()
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :lease), save_tries = save_tries + 1
    FROM due WHERE jobs.id = due.id
    RETURNING jobs.id, jobs.attempt, jobs.kind, jobs.model, jobs.save_tries, jobs.account_id, {SAVE_COLUMNS}"""
)


def claim_saves(tx: Transaction, job_ids: Collection[UUID]) -> list[Row[Any]]:
    """(saving) Claim the saves of these jobs for one lease. Absent are jobs that are not due or in other hands."""
    return tx.all(_CLAIM_SAVES, {"ids": list(job_ids), "lease": get_settings().lease_seconds})


def claim_save(tx: Transaction, job_id: UUID) -> Row[Any] | None:
    """(saving) Claim the save of one job; see `claim_saves`."""
    return next(iter(claim_saves(tx, [job_id])), None)


def renew_save_lease(tx: Transaction, *, job_id: UUID, save_tries: int) -> bool:
    """(saving) Renew the lease of the save; False if another worker took it over."""
    row = tx.first(
        text(
            """UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :lease)
               WHERE id = :id AND state = 'saving' AND save_tries = :tries RETURNING id"""
        ),
        {"id": job_id, "tries": save_tries, "lease": get_settings().lease_seconds},
    )
    return row is not None


def defer_save(
    tx: Transaction, *, job_id: UUID, save_tries: int, delay: float, refs: list[dict[str, Any]] | None
) -> bool:
    """(saving) Try again after `delay` seconds, with new result links (`refs`) if upstream returned some."""
    row = tx.first(
        text(
            """UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :delay), nudged_at = NULL,
                   result_refs = coalesce(CAST(:refs AS jsonb), result_refs)
               WHERE id = :id AND state = 'saving' AND save_tries = :tries RETURNING id"""
        ),
        {"id": job_id, "tries": save_tries, "delay": delay, "refs": json.dumps(refs) if refs else None},
    )
    return row is not None


_WAIT_FOR_STORAGE = text(
    """/* wait_for_storage */
    WITH known AS MATERIALIZED (
        SELECT note ->> 'waits_for' = 'storage' AND note ->> 'problem' = :problem AS same
        FROM job_events WHERE job_id = :id ORDER BY seq DESC LIMIT 1),
    upd AS (
        UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :delay), nudged_at = NULL,
            result_refs = coalesce(CAST(:refs AS jsonb), result_refs),
            deadline_at = greatest(deadline_at, clock_timestamp() + make_interval(secs => :more)),
            event_seq = event_seq + CASE WHEN (SELECT same FROM known) THEN 0 ELSE 1 END
        WHERE id = :id AND state = 'saving' AND save_tries = :tries
        RETURNING id, state, event_seq, parent_id),
    ev AS (
        INSERT INTO job_events (job_id, seq, from_state, to_state, actor, note)
        SELECT id, event_seq, state, state, 'save',
               jsonb_build_object('waits_for', 'storage', 'problem', CAST(:problem AS text), 'detail',
                   CAST(:detail AS text))
        FROM upd WHERE (SELECT same FROM known) IS NOT TRUE)
    SELECT id, state, event_seq, parent_id FROM upd"""
)


def wait_for_storage(
    tx: Transaction,
    *,
    job_id: UUID,
    save_tries: int,
    delay: float,
    more_seconds: float,
    refs: list[dict[str, Any]] | None,
    problem: str,
    detail: str,
) -> Row[Any] | None:
    """(saving) Like `defer_save`, because the storage does not take the results: that costs the job no time.

    Its deadline is at least `more_seconds` away then, and that of the conversation that started it. The timeline gets
    an entry for each new kind of problem.
    """
    values = {"id": job_id, "tries": save_tries, "delay": delay, "refs": json.dumps(refs) if refs else None}
    row = tx.first(_WAIT_FOR_STORAGE, {**values, "more": more_seconds, "problem": problem, "detail": detail})
    if row is not None and row.parent_id is not None:
        tx.run(
            text(
                """UPDATE jobs SET deadline_at = greatest(deadline_at, clock_timestamp() + make_interval(secs => :more))
                   WHERE id = :id AND state IN ('running', 'saving')"""
            ),
            {"id": row.parent_id, "more": more_seconds},
        )
    return row


def wake_deferred_saves(tx: Transaction) -> int:
    """(saving) Make the saves due that wait for their next try: the storage works again. Return their number."""
    rows = tx.all(
        text(
            """UPDATE jobs SET due_at = clock_timestamp() WHERE id IN (
                   SELECT id FROM jobs WHERE state = 'saving' AND kind <> 'chat' AND nudged_at IS NULL
                     AND due_at > clock_timestamp() ORDER BY id FOR NO KEY UPDATE SKIP LOCKED LIMIT :most)
               RETURNING id"""
        ),
        {"most": _MOST_WOKEN},
    )
    return len(rows)


def release_slot(tx: Transaction, job_id: UUID) -> bool:
    """(cancelled) Release the slot: upstream has finished the job."""
    row = tx.first(
        text("UPDATE jobs SET holds_slot = false WHERE id = :id AND state = 'cancelled' AND holds_slot RETURNING id"),
        {"id": job_id},
    )
    return row is not None


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a job that upstream reports."""

    job_id: UUID
    attempt: int
    queue_position: int | None
    forecast_seconds: int | None
    ready_items: int
    progress: int


_RECORD_PROGRESS = text(
    """/* record_progress */
    WITH input AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:changes AS jsonb)) AS c(
            job_id uuid, attempt integer, queue_position integer, forecast_seconds integer, ready_items integer,
            progress integer)),
    old AS (
        SELECT jobs.id FROM jobs JOIN input ON input.job_id = jobs.id AND input.attempt = jobs.attempt
        WHERE jobs.state = 'running'
          AND (jobs.queue_position IS DISTINCT FROM input.queue_position OR jobs.ready_items <> input.ready_items
               OR jobs.progress < input.progress OR jobs.absent_since IS NOT NULL)
        ORDER BY jobs.id FOR NO KEY UPDATE OF jobs),
    upd AS (
        UPDATE jobs SET progress = greatest(jobs.progress, input.progress), queue_position = input.queue_position,
            ready_items = input.ready_items, absent_since = NULL, event_seq = jobs.event_seq + 1,
            forecast_seconds = coalesce(input.forecast_seconds, jobs.forecast_seconds),
            stable_polls = 0, stable_since = clock_timestamp()
        FROM old JOIN input ON input.job_id = old.id WHERE jobs.id = old.id
        RETURNING jobs.id, jobs.event_seq, jobs.state, jobs.progress, jobs.group_id, jobs.queue_position,
            jobs.ready_items),
    ev AS (
        INSERT INTO job_events (job_id, seq, from_state, to_state, actor, note)
        SELECT id, event_seq, state, state, 'poll',
               jsonb_build_object('progress', progress, 'upstream_position', queue_position, 'items', ready_items)
        FROM upd)
    SELECT * FROM upd"""
)


def record_progress_many(tx: Transaction, reports: Sequence[Progress]) -> list[Row[Any]]:
    """(running) Record the progress that upstream reports. Return the rows of jobs with a visible change."""
    if not reports:
        return []
    changes = [
        {
            **asdict(report),
            "job_id": str(report.job_id),
            "queue_position": clamp_known(report.queue_position),
            "forecast_seconds": clamp_known(report.forecast_seconds),
        }
        for report in reports
    ]
    return tx.all(_RECORD_PROGRESS, {"changes": json.dumps(changes)})


def count_stable_poll(tx: Transaction, *, job_id: UUID, attempt: int) -> Row[Any] | None:
    """(running) Count a poll without new items, for the rule that decides when a partial result is final."""
    return tx.first(
        text(
            """UPDATE jobs SET stable_polls = stable_polls + 1
               WHERE id = :id AND state = 'running' AND attempt = :attempt
               RETURNING stable_polls, extract(epoch FROM clock_timestamp() - stable_since) AS stable_seconds"""
        ),
        {"id": job_id, "attempt": attempt},
    )


def mark_absent(tx: Transaction, *, job_id: UUID, attempt: int) -> float:
    """(running, cancelled) Record that upstream does not know the job; return the seconds since the first time."""
    row = tx.first(
        text(
            """UPDATE jobs SET absent_since = coalesce(absent_since, clock_timestamp())
               WHERE id = :id AND state IN ('running', 'cancelled') AND holds_slot AND attempt = :attempt
               RETURNING extract(epoch FROM clock_timestamp() - absent_since) AS seconds"""
        ),
        {"id": job_id, "attempt": attempt},
    )
    return float(row.seconds) if row is not None else 0.0


# A fault that repeats itself is recorded once.
_RECORD_FAULT = text(
    f"""/* record_fault */
    WITH input AS (
        SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS integer[])) AS i(id, attempt)),
    old AS (
        SELECT jobs.id FROM jobs JOIN input ON input.id = jobs.id AND input.attempt = jobs.attempt
        WHERE jobs.state IN {sql_list(OPEN)} AND NOT EXISTS (
            SELECT 1 FROM job_events e
            WHERE e.job_id = jobs.id AND e.seq = jobs.event_seq AND e.note ->> 'detail' = :detail)
        ORDER BY jobs.id FOR NO KEY UPDATE OF jobs),
    upd AS (
        UPDATE jobs SET event_seq = jobs.event_seq + 1 FROM old WHERE jobs.id = old.id
        RETURNING jobs.id, jobs.event_seq, jobs.state),
    ev AS (
        INSERT INTO job_events (job_id, seq, from_state, to_state, actor, note)
        SELECT id, event_seq, state, state, :actor,
            jsonb_build_object('code', CAST(:code AS text), 'detail', CAST(:detail AS text)) FROM upd)
    SELECT * FROM upd"""
)


def record_fault(
    tx: Transaction, jobs: Collection[tuple[UUID, int]], *, code: str, detail: str, actor: str
) -> list[Row[Any]]:
    """(any open state) Record a fault in the timelines of these jobs (id, attempt). Return the changed rows."""
    values = {"code": code, "detail": detail, "actor": actor}
    ids, attempts = [job_id for job_id, _ in jobs], [attempt for _, attempt in jobs]
    return tx.all(_RECORD_FAULT, {"ids": ids, "attempts": attempts, **values}) if ids else []
