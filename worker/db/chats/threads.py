"""Conversations that users continue: the list, their turns, and what a new turn answers.

A turn is one request with its jobs. It is written in the transaction that accepts them, so a turn always has jobs. The
newest turn can be replaced (the message was edited or sent again) or continued (its answer was cut off); what came
before never changes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.job_state import OPEN, UPSTREAM, JobState, in_group
from worker.db.engine import Transaction

# The most requests of one conversation, replaced ones included.
MAX_TURNS = 300
TITLE_CHARS = 60


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn as it is stored, and the state of its first job."""

    job_id: UUID
    n: int
    messages: list[dict[str, str]]  # of the user: role, text
    continues: bool
    kind: str  # of its jobs: chat, image, video
    state: str
    said: str  # by the agent; "" of other models
    finish: str | None  # stop, length; None = the answer is not complete

    @property
    def is_answering(self) -> bool:
        """Whether its text is not complete yet. The jobs that the agent started may take longer."""
        return self.state in {JobState.QUEUED, *UPSTREAM} if self.kind == "chat" else self.state in OPEN

    @property
    def is_cut_off(self) -> bool:
        """Whether the agent began an answer and did not end it."""
        is_broken = self.state in {JobState.FAILED, JobState.CANCELLED} and self.finish is None
        return self.kind == "chat" and bool(self.said) and (self.finish == "length" or is_broken)


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A turn before it has a row. `n` = its place, which fails if another turn was faster."""

    thread_id: UUID
    job_id: UUID
    n: int
    messages: list[dict[str, str]]
    replaces: tuple[UUID, ...] = ()  # the jobs of the newest turns
    continues: bool = False


def title_of(message: str) -> str:
    """Return the title of a conversation: the first words of its first message."""
    words = " ".join(message[: TITLE_CHARS * 20].split())
    if len(words) <= TITLE_CHARS:
        return words
    cut = words[:TITLE_CHARS]
    return f"{cut[: cut.rfind(' ')] if ' ' in cut[TITLE_CHARS // 2 :] else cut}…"


# In lists and searches a conversation counts once it has a turn that was not deleted.
_VISIBLE_TURN = """SELECT 1 FROM chat_turns t JOIN jobs j ON j.id = t.job_id
    WHERE t.thread_id = c.id AND t.replaced_at IS NULL AND j.deleted_at IS NULL"""
_CONTAINS = """(strpos(lower(c.title), lower(:words)) > 0 OR EXISTS (
    SELECT 1 FROM chat_turns t JOIN jobs j ON j.id = t.job_id LEFT JOIN conversations r ON r.job_id = t.job_id
    WHERE t.thread_id = c.id AND t.replaced_at IS NULL AND j.deleted_at IS NULL
      AND (strpos(lower(r.said), lower(:words)) > 0 OR EXISTS (
          SELECT 1 FROM jsonb_array_elements(t.messages) m WHERE strpos(lower(m ->> 'text'), lower(:words)) > 0))))"""
_COLUMNS = "c.id, c.title, c.created_at, c.updated_at"


def list_threads(
    tx: Transaction, owner: str, *, query: str | None, after: UUID | None, limit: int
) -> tuple[list[Row[Any]], bool]:
    """Return one page of an owner's conversations, newest activity first, and whether more follow."""
    conditions, values = ["c.owner = :owner", f"EXISTS ({_VISIBLE_TURN})"], {"owner": owner, "limit": limit + 1}
    if after is not None:
        conditions.append(
            """(c.updated_at, c.id) <
               (SELECT p.updated_at, p.id FROM chat_threads p WHERE p.id = :after AND p.owner = :owner)"""
        )
        values["after"] = after
    if query:
        conditions.append(_CONTAINS)
        values["words"] = query
    rows = tx.all(
        text(
            f"""/* list_threads */ SELECT {_COLUMNS} FROM chat_threads c WHERE {" AND ".join(conditions)}
                ORDER BY c.updated_at DESC, c.id DESC LIMIT :limit"""
        ),
        values,
    )
    return rows[:limit], len(rows) > limit


def find_thread(tx: Transaction, thread_id: UUID, owner: str) -> Row[Any] | None:
    """Return a conversation of this owner; None for others."""
    statement = text(f"SELECT {_COLUMNS} FROM chat_threads c WHERE c.id = :id AND c.owner = :owner")
    return tx.first(statement, {"id": thread_id, "owner": owner})


def rename_thread(tx: Transaction, thread_id: UUID, owner: str, title: str) -> Row[Any] | None:
    """Set the title; None for a conversation of another owner."""
    statement = f"UPDATE chat_threads c SET title = :title WHERE c.id = :id AND c.owner = :owner RETURNING {_COLUMNS}"
    return tx.first(text(statement), {"id": thread_id, "owner": owner, "title": title})


def lock_thread(tx: Transaction, thread_id: UUID, owner: str) -> bool:
    """Lock a conversation of this owner against new turns; False if there is none."""
    statement = text("SELECT 1 FROM chat_threads WHERE id = :id AND owner = :owner FOR UPDATE")
    return tx.first(statement, {"id": thread_id, "owner": owner}) is not None


def delete_thread(tx: Transaction, thread_id: UUID) -> None:
    """Delete a locked conversation: its turns and, hidden like deleted jobs, its chats. The results stay.

    The caller has checked that none of its turns is open.
    """
    tx.run(
        text(
            """/* hide_chats */
            UPDATE jobs SET deleted_at = clock_timestamp() FROM chat_turns t
            WHERE t.thread_id = :id AND jobs.id = t.job_id AND jobs.kind = 'chat' AND jobs.deleted_at IS NULL"""
        ),
        {"id": thread_id},
    )
    tx.run(text("DELETE FROM chat_threads WHERE id = :id"), {"id": thread_id})


_TURNS = """SELECT t.job_id, t.n, t.messages, t.continues, j.kind, j.state, coalesce(r.said, '') AS said, r.finish
    FROM chat_turns t JOIN jobs j ON j.id = t.job_id LEFT JOIN conversations r ON r.job_id = t.job_id
    WHERE t.thread_id = :id"""
_SHOWN = "t.replaced_at IS NULL AND j.deleted_at IS NULL"


def _turn(row: Row[Any]) -> Turn:
    return Turn(row.job_id, row.n, row.messages, row.continues, row.kind, row.state, row.said, row.finish)


def turns_of(
    tx: Transaction, thread_id: UUID, *, after: int = 0, limit: int = MAX_TURNS, with_replaced: bool = False
) -> list[Turn]:
    """Return the turns of a conversation in order; without `with_replaced` those that are shown."""
    shown = "" if with_replaced else f"AND {_SHOWN}"
    rows = tx.all(
        text(f"/* turns */ {_TURNS} AND t.n > :after {shown} ORDER BY t.n LIMIT :limit"),
        {"id": thread_id, "after": after, "limit": limit},
    )
    return [_turn(row) for row in rows]


def newest_turn(tx: Transaction, thread_id: UUID) -> Turn | None:
    """Return the newest turn that is shown; None without any."""
    statement = text(f"/* newest_turn */ {_TURNS} AND {_SHOWN} ORDER BY t.n DESC LIMIT 1")
    row = tx.first(statement, {"id": thread_id})
    return None if row is None else _turn(row)


def number_of(tx: Transaction, thread_id: UUID, job_id: UUID) -> int:
    """Return the place of a turn in a conversation; 0 if it is not in it."""
    statement = text("SELECT n FROM chat_turns WHERE thread_id = :id AND job_id = :job_id")
    row = tx.first(statement, {"id": thread_id, "job_id": job_id})
    return 0 if row is None else int(row.n)


def input_counts(tx: Transaction, job_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return how many references each of the jobs has; those without any are absent."""
    statement = text("SELECT job_id, count(*) AS n FROM job_inputs WHERE job_id = ANY(:ids) GROUP BY job_id")
    return {row.job_id: int(row.n) for row in tx.all(statement, {"ids": list(job_ids)})}


def last_number(tx: Transaction, thread_id: UUID) -> int:
    """Return the place of the newest turn, also of a replaced or deleted one; 0 without any."""
    row = tx.first(text("SELECT coalesce(max(n), 0) AS n FROM chat_turns WHERE thread_id = :id"), {"id": thread_id})
    return int(row.n) if row is not None else 0


def add_thread(tx: Transaction, thread_id: UUID, *, owner: str, user_id: UUID | None, title: str) -> None:
    """Add a conversation; its first turn follows in the same transaction."""
    tx.run(
        text("INSERT INTO chat_threads (id, owner, user_id, title) VALUES (:id, :owner, :user_id, :title)"),
        {"id": thread_id, "owner": owner, "user_id": user_id, "title": title},
    )


def add_turn(tx: Transaction, turn: NewTurn) -> bool:
    """Add a turn to a conversation; False if another turn took its place, or the conversation was deleted."""
    touched = tx.first(
        text("UPDATE chat_threads SET updated_at = clock_timestamp() WHERE id = :id RETURNING id"),
        {"id": turn.thread_id},
    )
    # The row is locked: two turns of one conversation come one after the other.
    if touched is None or last_number(tx, turn.thread_id) >= turn.n:
        return False
    if turn.replaces:
        statement = text("UPDATE chat_turns SET replaced_at = now() WHERE job_id = ANY(:ids)")
        tx.run(statement, {"ids": list(turn.replaces)})
    tx.run(
        text(
            """INSERT INTO chat_turns (job_id, thread_id, n, messages, continues)
               VALUES (:job_id, :thread_id, :n, CAST(:messages AS jsonb), :continues)"""
        ),
        {
            "job_id": turn.job_id,
            "thread_id": turn.thread_id,
            "n": turn.n,
            "messages": json.dumps(turn.messages),
            "continues": turn.continues,
        },
    )
    return True


def threads_of_jobs(tx: Transaction, job_ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """Return the conversations (first job of a request -> conversation) of those of the jobs that have one."""
    rows = tx.all(text("SELECT job_id, thread_id FROM chat_turns WHERE job_id = ANY(:ids)"), {"ids": list(job_ids)})
    return {row.job_id: row.thread_id for row in rows}


def result_ids(tx: Transaction, turns: Sequence[Turn]) -> list[UUID]:
    """Return the ids of the jobs with the results of these turns: those that the agent started, or its own."""
    chats = [turn.job_id for turn in turns if turn.kind == "chat"]
    others = [turn.job_id for turn in turns if turn.kind != "chat"]
    rows = tx.all(
        text(
            f"""/* results_of_turns */
            SELECT id FROM jobs WHERE parent_id = ANY(:chats) AND deleted_at IS NULL
            UNION ALL SELECT id FROM jobs WHERE {in_group("ANY(:others)")} AND deleted_at IS NULL"""
        ),
        {"chats": chats, "others": others},
    )
    return [row.id for row in rows]
