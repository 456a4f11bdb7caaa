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

Accounts that different people may use come along at different speeds. What an owner has had on their own accounts, or
on those of a group, puts nothing of theirs behind in the line of the others: a new job starts from the clock of the
accounts it may use, and the sweep brings forward what was left behind when such accounts stopped.
"""

from dataclasses import asdict, dataclass, replace
from uuid import UUID

from sqlalchemy import text

from worker.db.accounts.eligibility import candidates, works
from worker.db.engine import Transaction

# So little that it only decides between the first job of somebody idle and a job of a batch at the same place.
HEAD_START = 0.001
# Turns, as in `jobs.place` (`tables.PLACE`).
HEAD_START_PER_PRIORITY = 20
MOST_PRIORITY = 5


@dataclass(frozen=True, slots=True)
class Turn:
    """The turn of a job, and how far apart its owner's are."""

    at: float
    step: float
    priority: int

    @property
    def place(self) -> float:
        """Where it stands in line (`jobs.place`)."""
        return self.at - HEAD_START_PER_PRIORITY * self.priority


_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('turns ' || :owner, 0))")
# How far an account of the platform has come; those of one user have no line, as nobody else stands there.
_CLOCK = "max((a.turns #>> ARRAY[{kind}, 'place'])::float8)"
_NEXT = text(
    f"""/* next_turn */
    WITH w AS MATERIALIZED (
        SELECT CAST(:user_id AS uuid) AS user_id, CAST(:account_ids AS uuid[]) AS account_ids,
            CAST(:account_choice AS text) AS account_choice, CAST(:kind AS text) AS kind)
    SELECT coalesce(u.weight, 1) AS weight, coalesce(u.priority, 0) AS priority, last.turn AS last_turn,
        last.state = 'queued' AS last_waits,
        coalesce(
            (SELECT {_CLOCK.format(kind="w.kind")} FROM {candidates("w")}
             WHERE a.user_id IS NULL AND NOT (a.id = ANY(CAST(:avoid AS uuid[])))),
            (SELECT {_CLOCK.format(kind="w.kind")} FROM accounts a WHERE a.pool),
            (SELECT turn FROM jobs WHERE state = 'queued' AND kind = :kind ORDER BY place, id LIMIT 1),
            0) AS now
    FROM w LEFT JOIN users u ON u.id = w.user_id
    LEFT JOIN LATERAL (
        SELECT turn, state FROM jobs WHERE owner = :owner AND kind = :kind AND (attempt > 0 OR state = 'queued')
        ORDER BY turn DESC LIMIT 1) last ON true"""
)
_WAITS = text("SELECT max(turn) AS turn FROM jobs WHERE owner = :owner AND kind = :kind AND state = 'queued'")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What jobs of one kind may run on, as far as it decides their turns. No account ids = what the choice allows."""

    kind: str
    account_ids: list[UUID]
    avoid: list[UUID]
    account_choice: str = "any"


def give(tx: Transaction, owner: str, user_id: UUID | None, wanted: list[Wanted]) -> list[Turn]:
    """The turns of new jobs of one owner.

    Until the commit no other request of the owner is given turns, or many at once would all get the same.
    """
    tx.run(_LOCK, {"owner": owner})
    given: list[Turn] = []
    last: dict[str, Turn] = {}
    for job in wanted:
        if job.kind in last:
            last[job.kind] = replace(last[job.kind], at=last[job.kind].at + last[job.kind].step)
        else:
            last[job.kind] = would_be(tx, owner, user_id, job)
        given.append(last[job.kind])
    return given


def would_be(tx: Transaction, owner: str, user_id: UUID | None, wanted: Wanted) -> Turn:
    """The turn that a job would get if it were accepted now. Gives none, and locks nothing."""
    row = tx.first(_NEXT, {**asdict(wanted), "owner": owner, "user_id": user_id})
    if row is None:
        raise LookupError("no answer about turns")
    step = 1 / row.weight
    last = row.last_turn
    # A turn that was taken in this line is no later than its clock (but for a head start). A later one was taken
    # elsewhere and costs nothing here; what waits does.
    reach = row.now + HEAD_START_PER_PRIORITY * max(row.priority, 0)
    if last is not None and not row.last_waits and last > reach:
        waits = tx.all(_WAITS, {"owner": owner, "kind": wanted.kind})[0].turn
        last = reach if waits is None else max(reach, waits)
    at = row.now - HEAD_START
    return Turn(at=at if last is None else max(at, last + step), step=step, priority=row.priority)


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


# Jobs of one owner that may run on the same accounts. The first of them stands no further behind the line's clock than
# a turn of theirs lasts, because their turn before that was taken there, or than a priority puts them or others. Where
# it does, the accounts on which that turn was taken work no more, or it was cancelled.
_LEFT_BEHIND = text(
    f"""/* left_behind */
    WITH first AS MATERIALIZED (
        SELECT DISTINCT ON (owner, kind, account_choice, account_ids, avoid_accounts) owner, kind, user_id, place,
            priority, account_choice, account_ids, avoid_accounts
        FROM jobs WHERE state = 'queued' AND (CAST(:owner AS text) IS NULL OR owner = :owner)
        ORDER BY owner, kind, account_choice, account_ids, avoid_accounts, place),
    behind AS (
        SELECT first.*, place - c.now - 1 / coalesce(u.weight, 1)
            + {HEAD_START_PER_PRIORITY} * least(first.priority, 0) AS behind
        FROM first LEFT JOIN users u ON u.id = first.user_id
        CROSS JOIN LATERAL (SELECT {_CLOCK.format(kind="first.kind")} AS now FROM {candidates("first")}
            WHERE a.user_id IS NULL AND NOT (a.id = ANY(first.avoid_accounts)) AND {works("a")}) c)
    SELECT owner, kind, account_choice, account_ids, avoid_accounts, behind FROM behind
    WHERE behind > {HEAD_START_PER_PRIORITY * MOST_PRIORITY} ORDER BY owner LIMIT :limit"""
)
_BRING_FORWARD = text(
    """UPDATE jobs SET turn = turn - CAST(:behind AS float8) WHERE state = 'queued' AND owner = :owner AND kind = :kind
       AND account_choice = :account_choice AND account_ids = :account_ids AND avoid_accounts = :avoid_accounts"""
)


def left_behind(tx: Transaction, *, limit: int) -> list[str]:
    """Owners with jobs that stand far behind where their accounts are, and would wait for all who come after them."""
    return sorted({row.owner for row in tx.all(_LEFT_BEHIND, {"owner": None, "limit": limit})})


def bring_forward(tx: Transaction, owner: str) -> int:
    """Let such jobs of an owner stand where they would if they came now; how many moved."""
    tx.run(_LOCK, {"owner": owner})
    lines = tx.all(_LEFT_BEHIND, {"owner": owner, "limit": None})
    return sum(tx.run(_BRING_FORWARD, dict(line._mapping)).rowcount for line in lines)  # noqa: SLF001
