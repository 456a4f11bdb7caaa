"""Whose turn it is: start-time fair queueing. Each job gets its turn when it is accepted; the claim takes the first.

An owner's jobs of one kind stand `1 / weight` turns apart, so that of owners who wait at the same time each gets a
share by weight. The line's own clock is where its accounts are: `accounts.turns` notes, at each claim, the furthest
place an account has taken. Whoever has nothing waiting begins there, a touch before those who stand there already: next
for a free slot however long the batches of others are, and without credit for the time away. Who comes back sooner than
a turn of theirs lasts goes on behind their last one, so jobs sent one by one get no more than a batch does.

`jobs.place` = turn - 20 * priority (a generated column) is the order of the claim: one index, no scan of what waits. A
priority is a head start of so many turns, not a class of its own: what waits is passed by a limited number of jobs
only, so it ages by itself and nobody starves. A job that is queued again keeps its turn. Only rows say all this: the
last turn of an owner is that of their newest job that waits or was claimed, so a job cancelled while it waited gives
its turn back.
"""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import text

from worker.db.engine import Transaction

# So little that it only decides between the first job of somebody idle and a job of a batch at the same place.
HEAD_START = 0.001


@dataclass(frozen=True, slots=True)
class Turn:
    """The turn of a job, and how far apart its owner's are."""

    at: float
    step: float
    priority: int

    @property
    def place(self) -> float:
        """Where it stands in line (`jobs.place`)."""
        return self.at - 20 * self.priority


_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('turns ' || :owner, 0))")
_NEXT = text(
    """/* next_turn */
    SELECT coalesce(u.weight, 1) AS weight, coalesce(u.priority, 0) AS priority, last.turn AS last_turn,
        coalesce(
            (SELECT max((a.turns #>> ARRAY[CAST(:kind AS text), 'place'])::float8) FROM accounts a
             WHERE (a.id = ANY(CAST(:account_ids AS uuid[])) OR (CAST(:account_ids AS uuid[]) = '{}' AND a.pool))
               AND NOT (a.id = ANY(CAST(:avoid AS uuid[])))),
            (SELECT turn FROM jobs WHERE state = 'queued' AND kind = :kind ORDER BY place, id LIMIT 1),
            0) AS now
    FROM (VALUES (1)) AS one LEFT JOIN users u ON u.id = CAST(:user_id AS uuid)
    LEFT JOIN LATERAL (
        SELECT turn FROM jobs WHERE owner = :owner AND kind = :kind AND (attempt > 0 OR state = 'queued')
        ORDER BY turn DESC LIMIT 1) last ON true"""
)


def give(
    tx: Transaction, owner: str, user_id: UUID | None, lines: list[tuple[str, list[UUID], list[UUID]]]
) -> list[Turn]:
    """The turns of new jobs of one owner, given the kind, accounts (none = the pool) and avoided accounts of each.

    Until the commit no other request of the owner is given turns, or many at once would all get the same.
    """
    tx.run(_LOCK, {"owner": owner})
    given: list[Turn] = []
    last: dict[str, Turn] = {}
    for kind, account_ids, avoid in lines:
        if kind in last:
            last[kind] = replace(last[kind], at=last[kind].at + last[kind].step)
        else:
            values = {"owner": owner, "user_id": user_id, "account_ids": account_ids, "avoid": avoid}
            last[kind] = _next(tx, {**values, "kind": kind})
        given.append(last[kind])
    return given


def would_be(
    tx: Transaction, owner: str, user_id: UUID | None, *, kind: str, account_ids: list[UUID], avoid: list[UUID]
) -> Turn:
    """The turn that a job would get if it were accepted now. Gives none, and locks nothing."""
    values = {"owner": owner, "user_id": user_id, "account_ids": account_ids, "avoid": avoid}
    return _next(tx, {**values, "kind": kind})


def _next(tx: Transaction, values: dict[str, Any]) -> Turn:
    row = tx.first(_NEXT, values)
    if row is None:
        raise LookupError("no answer about turns")
    step = 1 / row.weight
    at = row.now - HEAD_START
    return Turn(at=at if row.last_turn is None else max(at, row.last_turn + step), step=step, priority=row.priority)


# The first that waits stays where it is and the others move together or apart.
_RESPACE = text(
    """/* respace_turns */
    WITH first AS (SELECT kind, min(turn) AS turn FROM jobs WHERE owner = :owner AND state = 'queued' GROUP BY kind)
    UPDATE jobs SET priority = :priority, turn = first.turn + (jobs.turn - first.turn) * CAST(:ratio AS float8)
    FROM first WHERE jobs.owner = :owner AND jobs.state = 'queued' AND jobs.kind = first.kind"""
)


def set_shares(tx: Transaction, user_id: UUID, *, weight: float | None, priority: int | None) -> None:
    """Give a user another weight or priority (None = as it was), also for what waits already."""
    if weight is None and priority is None:
        return
    owner = f"user:{user_id}"
    tx.run(_LOCK, {"owner": owner})
    old = tx.first(text("SELECT weight, priority FROM users WHERE id = :id FOR NO KEY UPDATE"), {"id": user_id})
    if old is None:
        return
    new_weight = old.weight if weight is None else weight
    new_priority = old.priority if priority is None else priority
    tx.run(
        text("UPDATE users SET weight = :weight, priority = :priority WHERE id = :id"),
        {"id": user_id, "weight": new_weight, "priority": new_priority},
    )
    tx.run(_RESPACE, {"owner": owner, "priority": new_priority, "ratio": old.weight / new_weight})
