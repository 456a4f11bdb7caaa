"""What the agent has said: the row of a conversation, written by the step that holds the stream.

It is the truth for waiters who missed a piece. The row is made just before the one call that sends the conversation, so
a job without one (for its attempt) was surely never sent. States are `jobs.py`'s business.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from worker.core.job_state import UPSTREAM, sql_list
from worker.core.settings import get_settings
from worker.db.engine import Transaction

_BEGIN = text(
    """/* begin_talk */
    WITH held AS (
        UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :lease)
        WHERE id = :id AND state = 'submitting' AND attempt = :attempt AND cancel_requested_at IS NULL
        RETURNING id, attempt)
    INSERT INTO conversations (job_id, attempt) SELECT id, attempt FROM held
    ON CONFLICT (job_id) DO UPDATE SET attempt = excluded.attempt, sent_at = now(), said = '', calls = 0, finish = NULL
        WHERE conversations.attempt < excluded.attempt
    RETURNING job_id"""
)
_NOTE_SAID = text(
    """/* note_said */
    WITH held AS (
        UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :lease)
        WHERE id = :id AND state = 'running' AND attempt = :attempt
        RETURNING id, cancel_requested_at IS NOT NULL AS cancel_requested)
    UPDATE conversations c SET said = :said, calls = :calls, finish = :finish, updated_at = clock_timestamp()
    FROM held WHERE c.job_id = held.id RETURNING held.cancel_requested"""
)


def begin(tx: Transaction, *, job_id: UUID, attempt: int) -> bool:
    """(submitting) the call is about to be made, for the only time; False when the claim is lost or not wanted."""
    values = {"id": job_id, "attempt": attempt, "lease": get_settings().conversation_lease_seconds}
    return tx.first(_BEGIN, values) is not None


def record_reply(
    tx: Transaction, *, job_id: UUID, attempt: int, said: str, calls: int, finish: str | None = None
) -> bool | None:
    """(running) the whole text so far, and the lease anew. Whether somebody wishes it cancelled; None = it is lost."""
    values = {"id": job_id, "attempt": attempt, "said": said, "calls": calls, "finish": finish}
    row = tx.first(_NOTE_SAID, {**values, "lease": get_settings().conversation_lease_seconds})
    return row.cancel_requested if row is not None else None


def renew_leases(tx: Transaction, held: dict[UUID, int]) -> None:
    """(submitting, running) the lease anew for these jobs (id, attempt): their streams are open in this process."""
    tx.run(
        text(
            f"""/* show_life */ UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :lease)
               FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS integer[])) AS held(id, attempt)
               WHERE jobs.id = held.id AND jobs.attempt = held.attempt AND jobs.state IN {sql_list(UPSTREAM)}"""
        ),
        {"ids": list(held), "attempts": list(held.values()), "lease": get_settings().conversation_lease_seconds},
    )


@dataclass(frozen=True, slots=True)
class AgentReply:
    """A conversation as its row has it. `finish` None = the agent still talks, or was cut off."""

    said: str = ""
    calls: int = 0
    finish: str | None = None


def spoken(tx: Transaction, job_ids: list[UUID]) -> dict[UUID, AgentReply]:
    """What was said in these conversations; those that were not sent yet are absent."""
    rows = tx.all(
        text("SELECT job_id, said, calls, finish FROM conversations WHERE job_id = ANY(:ids)"), {"ids": job_ids}
    )
    return {row.job_id: AgentReply(row.said, row.calls, row.finish) for row in rows}


def replies_longer_than(tx: Transaction, known: dict[UUID, int]) -> dict[UUID, str]:
    """The texts of these conversations that are longer than so many characters."""
    rows = tx.all(
        text(
            """SELECT c.job_id, c.said FROM unnest(CAST(:ids AS uuid[]), CAST(:lengths AS integer[])) AS k(id, length)
               JOIN conversations c ON c.job_id = k.id WHERE char_length(c.said) > k.length"""
        ),
        {"ids": list(known), "lengths": list(known.values())},
    )
    return {row.job_id: row.said for row in rows}
