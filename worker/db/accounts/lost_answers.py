"""Jobs whose submit was not answered, at an upstream that has to be searched for them; and what else polls learn.

While such a job is `submitting`, `absent_since` = when the answer was lost, and `due_at` = when to look for it next.
Nothing here changes the state of a job.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.job_state import UPSTREAM, sql_list
from worker.db.accounts import polling
from worker.db.engine import Transaction

# Why a job was sent a second time, in its events. That happens once at most.
PROVED_ABSENT = "upstream proved that it does not have this submit"
SENT_AGAIN = "unclear; sent again as requested"

_REMARK = """ev AS (
        INSERT INTO job_events (job_id, seq, from_state, to_state, actor, note)
        SELECT id, event_seq, state, state, CAST(:actor AS text), CAST(:note AS jsonb) FROM upd)
    SELECT * FROM upd"""
_BEGIN = text(
    f"""/* answer_lost */
    WITH upd AS (
        UPDATE jobs SET absent_since = clock_timestamp(), event_seq = event_seq + 1,
            due_at = clock_timestamp() + make_interval(secs => :seconds)
        WHERE id = :id AND state = 'submitting' AND attempt = :attempt AND absent_since IS NULL
        RETURNING id, state, event_seq, account_id),
    {_REMARK}"""
)


def begin(tx: Transaction, *, job_id: UUID, attempt: int, seconds: float, actor: str) -> Row[Any] | None:
    """(submitting) The answer was lost. Look for the job after `seconds`, for the first time."""
    note = json.dumps({"remark": "answer_lost"})
    row = tx.first(_BEGIN, {"id": job_id, "attempt": attempt, "seconds": seconds, "actor": actor, "note": note})
    if row is not None:
        polling.schedule_poll(tx, row.account_id, seconds=seconds)
    return row


def look_again(tx: Transaction, *, job_id: UUID, attempt: int, after: float) -> None:
    """(submitting) Look for the job again, `after` seconds after its answer was lost, but not at once."""
    tx.run(
        text(
            """UPDATE jobs SET due_at = greatest(absent_since + make_interval(secs => :after),
                                                 clock_timestamp() + interval '2 seconds')
               WHERE id = :id AND state = 'submitting' AND attempt = :attempt AND absent_since IS NOT NULL"""
        ),
        {"id": job_id, "attempt": attempt, "after": after},
    )


def owned_ids(tx: Transaction, account_id: UUID, *, since: datetime) -> set[str]:
    """Return the upstream ids that jobs of the account or of its limit group have, submitted since then."""
    rows = tx.all(
        text(
            """SELECT j.upstream_id FROM accounts own
               JOIN accounts a ON a.id = own.id OR a.limit_group = own.limit_group
               JOIN jobs j ON j.account_id = a.id
               WHERE own.id = :id AND j.submitted_at >= :since AND j.upstream_id IS NOT NULL"""
        ),
        {"id": account_id, "since": since},
    )
    return {row.upstream_id for row in rows}


@dataclass(frozen=True, slots=True)
class Unclear:
    """What decides about a job that was not found."""

    attempts_left: bool
    cancel_requested: bool
    retries_unclear: bool  # its caller asked for a second try
    was_repeated: bool  # it had that already


def lock_unclear(tx: Transaction, *, job_id: UUID, attempt: int) -> Unclear | None:
    """(submitting) Lock the job until the commit. None = it was overtaken."""
    row = tx.first(
        text(
            """SELECT attempt < max_attempts AS attempts_left, cancel_requested_at IS NOT NULL AS cancel_requested,
                   coalesce(params -> 'retry_unclear' = 'true'::jsonb, false) AS retries_unclear,
                   EXISTS (SELECT 1 FROM job_events e WHERE e.job_id = jobs.id
                           AND e.note ->> 'reason' = ANY(:reasons)) AS was_repeated
               FROM jobs WHERE id = :id AND state = 'submitting' AND attempt = :attempt FOR NO KEY UPDATE OF jobs"""
        ),
        {"id": job_id, "attempt": attempt, "reasons": [PROVED_ABSENT, SENT_AGAIN]},
    )
    return None if row is None else Unclear(**row._mapping)  # noqa: SLF001


_DOUBT = text(
    f"""/* doubt_charge */
    WITH upd AS (
        UPDATE jobs SET charge_doubt = 'charged_twice_possible', event_seq = event_seq + 1 WHERE id = :id
        RETURNING id, state, event_seq, account_id),
    {_REMARK}"""
)


def doubt_charge(tx: Transaction, job_id: UUID, *, detail: str) -> Row[Any] | None:
    """Record that the job may have been charged more than once."""
    note = json.dumps({"remark": "charged_twice_possible", "detail": detail})
    return tx.first(_DOUBT, {"id": job_id, "actor": "poll", "note": note})


_REQUEST_CANCEL = text(
    f"""/* request_cancel */
    WITH upd AS (
        UPDATE jobs SET cancel_requested_at = clock_timestamp(), event_seq = event_seq + 1
        WHERE id = :id AND cancel_requested_at IS NULL AND state IN {sql_list(UPSTREAM)}
        RETURNING id, state, event_seq, account_id),
    {_REMARK}"""
)


def request_cancel(tx: Transaction, job_id: UUID, *, by: Mapping[str, Any]) -> None:
    """Record that the job is to be cancelled as soon as upstream allows it. `by` = who asked for it."""
    note = json.dumps({"remark": "cancel_requested", **by})
    tx.run(_REQUEST_CANCEL, {"id": job_id, "actor": "api", "note": note})


_REFUSE_CANCEL = text(
    f"""/* refuse_cancel */
    WITH upd AS (
        UPDATE jobs SET cancel_requested_at = NULL, event_seq = event_seq + 1
        WHERE id = :id AND state = 'running' AND attempt = :attempt AND cancel_requested_at IS NOT NULL
        RETURNING id, state, event_seq, account_id),
    {_REMARK}"""
)


def refuse_cancel(tx: Transaction, *, job_id: UUID, attempt: int) -> Row[Any] | None:
    """(running) Upstream is at work already and charges it, so the job continues. The request is over."""
    note = json.dumps({"remark": "cancel_refused"})
    return tx.first(_REFUSE_CANCEL, {"id": job_id, "attempt": attempt, "actor": "poll", "note": note})


def learn(tx: Transaction, account_id: UUID, facts: Mapping[str, Any]) -> None:
    """Add to what is known of the account."""
    tx.run(
        text("UPDATE accounts SET provider_facts = provider_facts || CAST(:facts AS jsonb) WHERE id = :id"),
        {"id": account_id, "facts": json.dumps(facts)},
    )


_NOTE_CALLBACK = text(
    """/* note_callback */
    WITH job AS (
        SELECT id, account_id, state, upstream_hint FROM jobs WHERE submit_key = :key AND holds_slot),
    hint AS (
        UPDATE jobs SET upstream_hint = :hint FROM job
        WHERE jobs.id = job.id AND job.state = 'submitting' AND job.upstream_hint IS NULL
          AND CAST(:hint AS text) IS NOT NULL)
    SELECT account_id, state FROM job"""
)


def note_callback(tx: Transaction, submit_key: UUID, *, hint: str | None) -> Row[Any] | None:
    """Record that upstream reported a change. Return the account and the state of the job; None = it is not open.

    `hint` = what the report calls it, kept while the answer to its submit is missing.
    """
    return tx.first(_NOTE_CALLBACK, {"key": submit_key, "hint": hint})
