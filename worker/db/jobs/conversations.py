"""The reply of the agent in a conversation, written by the task that reads the stream.

Waiting requests that missed a piece read the row. The row is inserted just before the one call that sends the
conversation, so a job without a row for its attempt was certainly never sent. States are in `state_machine.py`.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from worker.core.job_state import UPSTREAM, sql_list
from worker.core.settings import get_settings
from worker.db.engine import Transaction

_BEGIN = text(
    """/* begin_conversation */
    WITH held AS (
        UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :lease)
        WHERE id = :id AND state = 'submitting' AND attempt = :attempt AND cancel_requested_at IS NULL
        RETURNING id, attempt)
    INSERT INTO conversations (job_id, attempt) SELECT id, attempt FROM held
    ON CONFLICT (job_id) DO UPDATE SET attempt = excluded.attempt, sent_at = now(), said = '', calls = 0, finish = NULL
        WHERE conversations.attempt < excluded.attempt
    RETURNING job_id"""
)
_RECORD_REPLY = text(
    """/* record_reply */
    WITH held AS (
        UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :lease)
        WHERE id = :id AND state = 'running' AND attempt = :attempt
        RETURNING id, cancel_requested_at IS NOT NULL AS cancel_requested)
    UPDATE conversations c SET said = :said, calls = :calls, finish = :finish, updated_at = clock_timestamp()
    FROM held WHERE c.job_id = held.id RETURNING held.cancel_requested"""
)


def begin_sending(tx: Transaction, *, job_id: UUID, attempt: int) -> bool:
    """(submitting) Record that the call is about to start; False if the claim is lost or a cancel was requested."""
    values = {"id": job_id, "attempt": attempt, "lease": get_settings().conversation_lease_seconds}
    return tx.first(_BEGIN, values) is not None


def record_reply(
    tx: Transaction, *, job_id: UUID, attempt: int, text_so_far: str, tool_calls: int, finish_reason: str | None = None
) -> bool | None:
    """(running) Write the whole text so far and renew the lease.

    Return whether a cancel was requested; None if another worker took the job over.
    """
    values = {"id": job_id, "attempt": attempt, "said": text_so_far, "calls": tool_calls, "finish": finish_reason}
    row = tx.first(_RECORD_REPLY, {**values, "lease": get_settings().conversation_lease_seconds})
    return row.cancel_requested if row is not None else None


def renew_leases(tx: Transaction, attempts: dict[UUID, int]) -> None:
    """(submitting, running) Renew the leases of jobs (id -> attempt) whose streams this process reads."""
    tx.run(
        text(
            f"""/* renew_conversation_leases */
               UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :lease)
               FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS integer[])) AS held(id, attempt)
               WHERE jobs.id = held.id AND jobs.attempt = held.attempt AND jobs.state IN {sql_list(UPSTREAM)}"""
        ),
        {
            "ids": list(attempts),
            "attempts": list(attempts.values()),
            "lease": get_settings().conversation_lease_seconds,
        },
    )


@dataclass(frozen=True, slots=True)
class AgentReply:
    """The agent's reply as stored. `finish_reason` None = the reply is not complete."""

    text: str = ""
    tool_calls: int = 0
    finish_reason: str | None = None


def find_replies(tx: Transaction, job_ids: list[UUID]) -> dict[UUID, AgentReply]:
    """Return the replies of these conversations; those that were not sent yet are absent."""
    rows = tx.all(
        text("SELECT job_id, said, calls, finish FROM conversations WHERE job_id = ANY(:ids)"), {"ids": job_ids}
    )
    return {row.job_id: AgentReply(row.said, row.calls, row.finish) for row in rows}


def replies_longer_than(tx: Transaction, lengths: dict[UUID, int]) -> dict[UUID, str]:
    """Return the texts of these conversations that are longer than the given number of characters."""
    rows = tx.all(
        text(
            """SELECT c.job_id, c.said FROM unnest(CAST(:ids AS uuid[]), CAST(:lengths AS integer[])) AS k(id, length)
               JOIN conversations c ON c.job_id = k.id WHERE char_length(c.said) > k.length"""
        ),
        {"ids": list(lengths), "lengths": list(lengths.values())},
    )
    return {row.job_id: row.said for row in rows}
