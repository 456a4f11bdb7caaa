"""Start-time fair queueing: each job gets its position when it is accepted; a claim takes the lowest position.

`jobs.turn` is the virtual start time of a job. Consecutive jobs of one owner and kind are `1 / weight` apart, so owners
who wait at the same time share the accounts by weight. The virtual clock of a queue is the progress of its accounts:
at each claim, `accounts.turns` records the furthest position that the account has reached. An owner without waiting
jobs starts at that clock, with a tiny head start over jobs at the same position: they get the next free slot however
long the batches of others are, but do not accumulate credit while idle. An owner who returns within one interval
continues behind their last job, so jobs sent one by one get no more than a batch does.

`jobs.place` = turn - 20 * priority (a generated column) is the order of the claim: one index, no scan of the queue. A
priority is a head start of a fixed number of turns, not a class of its own: a waiting job is overtaken by a limited
number of jobs, so no owner starves. A job that is requeued keeps its position. All state is in the rows: the last turn
of an owner is that of their newest job that waits or was claimed, so cancelling a queued job releases its turn.

Accounts that different users may use progress at different speeds. Jobs that ran on an owner's own accounts, or on
those of a group, do not push their owner back in other queues: a new job starts from the clock of the accounts that it
may use, and the sweep rebases jobs that were left far behind when such accounts stopped.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import text

from worker.db.accounts.eligibility import ANY_NEEDS, NEEDS, Needs, candidates, works
from worker.db.accounts.queue_lines import line_heads
from worker.db.engine import Transaction

# So small that it only decides between the first job of an idle owner and a batch job at the same position.
HEAD_START = 0.001
# In turns, as in `jobs.place` (`schema.jobs.PLACE`).
HEAD_START_PER_PRIORITY = 20
MOST_PRIORITY = 5


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """The virtual start time of a job (`jobs.turn`), the interval to its owner's next job, and its priority."""

    turn: float
    interval: float
    priority: int

    @property
    def place(self) -> float:
        """The order of the claim (`jobs.place`)."""
        return self.turn - HEAD_START_PER_PRIORITY * self.priority


# Of a job that is not in the queue yet.
NO_POSITION = QueuePosition(turn=0.0, interval=1.0, priority=0)

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('turns ' || :owner, 0))")
# The progress of the platform's accounts. Accounts of one user have no queue of several owners, so no clock.
_CLOCK = "max((a.turns #>> ARRAY[{kind}, 'place'])::float8)"
_NEXT_TURN = text(
    f"""/* next_turn */
    WITH w AS MATERIALIZED (
        SELECT CAST(:user_id AS uuid) AS user_id, CAST(:account_ids AS uuid[]) AS account_ids,
            CAST(:account_choice AS text) AS account_choice, CAST(:kind AS text) AS kind, {NEEDS})
    SELECT coalesce(u.weight, 1) AS weight, coalesce(u.priority, 0) AS priority, last.turn AS last_turn,
        last.state = 'queued' AS last_is_queued,
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
_LAST_QUEUED_TURN = text(
    "SELECT max(turn) AS turn FROM jobs WHERE owner = :owner AND kind = :kind AND state = 'queued'"
)


@dataclass(frozen=True, slots=True)
class QueueRequest:
    """The accounts that jobs of one kind may use, which decide their positions. No account ids = all that the choice
    allows.
    """

    kind: str
    account_ids: list[UUID]
    avoid: list[UUID]
    account_choice: str = "any"
    needs: Needs = ANY_NEEDS

    @classmethod
    def of(cls, job: Any) -> "QueueRequest":
        """Return the request of a job: a `NewJob` or a row."""
        needs = Needs(tuple(job.providers), job.currency, job.model)
        return cls(job.kind, list(job.account_ids), list(job.avoid_accounts), job.account_choice, needs)


def lock_owner(tx: Transaction, owner: str) -> None:
    """Block other transactions from giving this owner positions until the commit."""
    tx.run(_LOCK, {"owner": owner})


def assign(tx: Transaction, owner: str, user_id: UUID | None, requests: list[QueueRequest]) -> list[QueuePosition]:
    """Return the positions of new jobs of one owner, in order.

    Holds a lock of the owner until the commit: otherwise concurrent requests would get the same positions.
    """
    tx.run(_LOCK, {"owner": owner})
    positions: list[QueuePosition] = []
    last: dict[str, QueuePosition] = {}
    queues: dict[tuple[object, ...], _NextPosition] = {}
    for request in requests:
        queue = (request.kind, tuple(request.account_ids), tuple(request.avoid), request.account_choice, request.needs)
        if queue not in queues:
            queues[queue] = _find_next(tx, owner, user_id, request)
        following, previous = queues[queue], last.get(request.kind)
        if previous is None:
            last[request.kind] = following.position
        else:
            turn = max(following.earliest, previous.turn + previous.interval)
            last[request.kind] = replace(following.position, turn=turn)
        positions.append(last[request.kind])
    return positions


def assign_jobs(tx: Transaction, jobs: Sequence[Any]) -> list[QueuePosition]:
    """Return the positions of jobs of one owner (`NewJob` or rows), in order; see `assign`."""
    return assign(tx, jobs[0].owner, jobs[0].user_id, [QueueRequest.of(job) for job in jobs]) if jobs else []


def preview(tx: Transaction, owner: str, user_id: UUID | None, request: QueueRequest) -> QueuePosition:
    """Return the position that a job would get if it were accepted now. Writes and locks nothing."""
    return _find_next(tx, owner, user_id, request).position


@dataclass(frozen=True, slots=True)
class _NextPosition:
    """The next position of an owner in a queue, and the earliest turn of that queue now."""

    position: QueuePosition
    earliest: float


def _find_next(tx: Transaction, owner: str, user_id: UUID | None, request: QueueRequest) -> _NextPosition:
    values = {name: value for name, value in asdict(request).items() if name != "needs"}
    row = tx.first(_NEXT_TURN, {**values, **request.needs.values(), "owner": owner, "user_id": user_id})
    if row is None:
        raise LookupError("the query for the next turn returned no row")
    interval = 1 / row.weight
    last = row.last_turn
    # A turn taken in this queue is not later than its clock (plus a head start). A later one was taken on other
    # accounts and does not count here; the owner's queued jobs do.
    limit = row.now + HEAD_START_PER_PRIORITY * max(row.priority, 0)
    if last is not None and not row.last_is_queued and last > limit:
        queued = tx.all(_LAST_QUEUED_TURN, {"owner": owner, "kind": request.kind})[0].turn
        last = limit if queued is None else max(limit, queued)
    earliest = row.now - HEAD_START
    turn = earliest if last is None else max(earliest, last + interval)
    return _NextPosition(QueuePosition(turn=turn, interval=interval, priority=row.priority), earliest)


# The first queued job keeps its turn; the intervals to the others are scaled.
_RESCALE = text(
    """/* respace_turns */
    WITH first AS (SELECT kind, min(turn) AS turn FROM jobs WHERE owner = :owner AND state = 'queued' GROUP BY kind)
    UPDATE jobs SET priority = :priority, turn = first.turn + (jobs.turn - first.turn) * CAST(:ratio AS float8)
    FROM first WHERE jobs.owner = :owner AND jobs.state = 'queued' AND jobs.kind = first.kind"""
)


def set_weight_and_priority(tx: Transaction, user_id: UUID, *, weight: float | None, priority: int | None) -> None:
    """Change a user's weight or priority (None = unchanged), also for jobs that are already queued."""
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
    tx.run(_RESCALE, {"owner": owner, "priority": new_priority, "ratio": old.weight / new_weight})


# Groups of one owner's jobs that may use the same accounts. The first job of a group is at most one interval (plus the
# head start of a priority) behind the clock of its accounts, because the owner's previous turn was taken there. If it
# is further behind, the accounts on which that turn was taken have stopped, or that job was cancelled.
_LEFT_BEHIND = text(
    f"""/* left_behind */
    WITH RECURSIVE {line_heads("lines", "ARRAY['image', 'video', 'chat']")},
    first AS MATERIALIZED (
        SELECT DISTINCT ON (owner, kind, account_choice, account_ids, avoid_accounts, providers, currency)
            owner, kind, user_id, place, priority, account_choice, account_ids, avoid_accounts, providers, currency,
            CAST(NULL AS text) AS model
        FROM lines WHERE CAST(:owner AS text) IS NULL OR owner = :owner
        ORDER BY owner, kind, account_choice, account_ids, avoid_accounts, providers, currency, place),
    behind AS (
        SELECT first.*, place - c.now - 1 / coalesce(u.weight, 1)
            + {HEAD_START_PER_PRIORITY} * least(first.priority, 0) AS behind
        FROM first LEFT JOIN users u ON u.id = first.user_id
        CROSS JOIN LATERAL (SELECT {_CLOCK.format(kind="first.kind")} AS now FROM {candidates("first")}
            WHERE a.user_id IS NULL AND NOT (a.id = ANY(first.avoid_accounts)) AND {works("a")}) c)
    SELECT owner, kind, account_choice, account_ids, avoid_accounts, providers, currency, behind FROM behind
    WHERE behind > {HEAD_START_PER_PRIORITY * MOST_PRIORITY} ORDER BY owner LIMIT :limit"""
)
_REBASE = text(
    """UPDATE jobs SET turn = turn - CAST(:behind AS float8) WHERE state = 'queued' AND owner = :owner AND kind = :kind
       AND account_choice = :account_choice AND account_ids = :account_ids AND avoid_accounts = :avoid_accounts
       AND providers = :providers AND currency IS NOT DISTINCT FROM :currency"""
)


def find_owners_to_rebase(tx: Transaction, *, limit: int) -> list[str]:
    """Return owners whose jobs are so far behind the clock of their accounts that every new job would overtake them."""
    return sorted({row.owner for row in tx.all(_LEFT_BEHIND, {"owner": None, "limit": limit})})


def rebase(tx: Transaction, owner: str) -> int:
    """Move such jobs of an owner to the position they would get now; return how many moved."""
    tx.run(_LOCK, {"owner": owner})
    groups = tx.all(_LEFT_BEHIND, {"owner": owner, "limit": None})
    return sum(tx.run(_REBASE, dict(group._mapping)).rowcount for group in groups)  # noqa: SLF001
