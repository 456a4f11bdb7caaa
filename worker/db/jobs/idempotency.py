"""Creating requests and the jobs they stand for: what a repeat is joined to. Also which API processes live.

A row is written with the jobs it stands for. Its holder is the newest HTTP request for them; the end of that one is
noted a moment later, and when its process dies first, the row of the process tells.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from worker.core.errors import ERRORS
from worker.db.engine import Row, Transaction

# How long a repeat with the same key is a repeat (draft-ietf-httpapi-idempotency-key-header).
KEY_HOURS = 24
# How long a repeat without a key is one (openai-compat section 8, rule 2).
JOIN_MINUTES = 30

# Refusals that cost nothing and may be over: they are not kept, or the same request could never be repeated.
_PASSING = sorted(
    code for code, kind in ERRORS.items() if kind.status in {429, 503} or code == "upstream_session_expired"
)
_REFUSED = """NOT EXISTS (SELECT 1 FROM jobs j WHERE j.group_id = r.group_id
    AND (j.state <> 'failed' OR j.submitted_at IS NOT NULL OR j.error_code <> ALL(:passing)))"""


@dataclass(frozen=True, slots=True)
class Holder:
    """An HTTP request that is open now: who it is, in which process, and after how many seconds its client hangs up."""

    id: UUID
    process: UUID
    gives_up_in: float | None = None


@dataclass(frozen=True, slots=True)
class NewRequest:
    """What a creating request is known by: `caller` and `route` are the scope of `key` and `fingerprint`."""

    caller: str
    route: str
    fingerprint: str
    group_id: UUID
    key: str | None = None


def _held(holder: Holder) -> dict[str, Any]:
    return {"holder": holder.id, "process": holder.process, "patience": holder.gives_up_in}


def lock_twins(tx: Transaction, request: NewRequest) -> None:
    """Until the commit, no other request like this one is judged: a repeat sees the jobs of the one before it."""
    tx.run(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:scope, 0))"),
        {"scope": f"{request.caller} {request.fingerprint}"},
    )


def remember_request(tx: Transaction, request: NewRequest, holder: Holder) -> bool:
    """Write the row of a new group of jobs; False when its key is taken (that row is then committed and readable)."""
    row = tx.first(
        text(
            """INSERT INTO requests (group_id, caller, route, key, fingerprint, holder, process, gives_up_at)
               VALUES (:group_id, :caller, :route, :key, :fingerprint, :holder, :process,
                       clock_timestamp() + make_interval(secs => :patience))
               ON CONFLICT DO NOTHING RETURNING group_id"""
        ),
        {
            "group_id": request.group_id,
            "caller": request.caller,
            "route": request.route,
            "key": request.key,
            "fingerprint": request.fingerprint,
            **_held(holder),
        },
    )
    return row is not None


def remembered_request(tx: Transaction, request: NewRequest) -> "Row[tuple[UUID, str, bool]] | None":
    """The earlier request with this key, locked: `group_id`, `fingerprint`, and whether it was refused at no cost."""
    return tx.first(
        text(
            f"""SELECT r.group_id, r.fingerprint, {_REFUSED} AS refused FROM requests r
                WHERE r.caller = :caller AND r.route = :route AND r.key = :key FOR UPDATE OF r"""
        ),
        {"caller": request.caller, "route": request.route, "key": request.key, "passing": _PASSING},
    )


def forget_request(tx: Transaction, group_id: UUID) -> None:
    """Its key is free again. The jobs stay."""
    tx.run(text("DELETE FROM requests WHERE group_id = :group_id"), {"group_id": group_id})


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier request like this one. Ages are seconds; of `given_up_age`, below 0 = not yet."""

    group_id: UUID
    holder: UUID
    process: UUID
    joins: int
    ended_how: str | None
    ended_age: float | None
    held_age: float
    given_up_age: float | None
    seen_age: float | None  # of its process; None = that one is gone
    cancelled: bool


_SIMILAR = text(
    f"""/* similar_requests */
    SELECT r.group_id, r.holder, r.process, r.joins, r.ended_how,
        CAST(extract(epoch FROM clock_timestamp() - r.ended_at) AS double precision) AS ended_age,
        CAST(extract(epoch FROM clock_timestamp() - r.held_at) AS double precision) AS held_age,
        CAST(extract(epoch FROM clock_timestamp() - r.gives_up_at) AS double precision) AS given_up_age,
        CAST(extract(epoch FROM clock_timestamp() - p.seen_at) AS double precision) AS seen_age,
        EXISTS (SELECT 1 FROM jobs c WHERE c.group_id = r.group_id AND c.state = 'cancelled') AS cancelled
    FROM requests r LEFT JOIN api_processes p ON p.id = r.process
    WHERE r.fingerprint = :fingerprint AND r.key IS NULL AND r.caller = :caller AND r.route = :route
      AND r.accepted_at > clock_timestamp() - make_interval(mins => :minutes)
      AND NOT EXISTS (SELECT 1 FROM jobs d WHERE d.group_id = r.group_id AND d.deleted_at IS NOT NULL)
      AND NOT ({_REFUSED})
    ORDER BY r.accepted_at DESC LIMIT 100"""
)


def similar_requests(tx: Transaction, request: NewRequest) -> list[Earlier]:
    """Requests without a key that asked for the same, of the last half hour, newest first."""
    values = {
        "fingerprint": request.fingerprint,
        "caller": request.caller,
        "route": request.route,
        "minutes": JOIN_MINUTES,
        "passing": _PASSING,
    }
    return [Earlier(**row._mapping) for row in tx.all(_SIMILAR, values)]  # noqa: SLF001 - SQLAlchemy's public name


def take_over(tx: Transaction, earlier: Earlier, holder: Holder) -> bool:
    """A repeat now stands for these jobs; False when another took them first."""
    row = tx.first(
        text(
            """UPDATE requests SET holder = :holder, process = :process, joins = joins + 1, ended_at = NULL,
                   ended_how = NULL, held_at = clock_timestamp(),
                   gives_up_at = clock_timestamp() + make_interval(secs => :patience)
               WHERE group_id = :group_id AND holder = :before RETURNING group_id"""
        ),
        {"group_id": earlier.group_id, "before": earlier.holder, **_held(holder)},
    )
    return row is not None


@dataclass(frozen=True, slots=True)
class Ended:
    """How an HTTP request ended: answered, timeout (the wait ran out) or cut (the client has gone)."""

    group_id: UUID
    holder: UUID
    how: str


def note_ends(tx: Transaction, ended: list[Ended]) -> None:
    """These HTTP requests are over. One that another has taken over from changes nothing."""
    if not ended:
        return
    tx.run(
        text(
            """UPDATE requests r SET ended_at = clock_timestamp(), ended_how = e.how
               FROM unnest(CAST(:groups AS uuid[]), CAST(:holders AS uuid[]), CAST(:hows AS text[]))
                   AS e (group_id, holder, how)
               WHERE r.group_id = e.group_id AND r.holder = e.holder AND r.ended_at IS NULL"""
        ),
        {
            "groups": [one.group_id for one in ended],
            "holders": [one.holder for one in ended],
            "hows": [one.how for one in ended],
        },
    )


def beat(tx: Transaction, process: UUID, *, age: float) -> None:
    """This API process lived `age` seconds ago, and every end before that moment is noted."""
    tx.run(
        text(
            """INSERT INTO api_processes (id, seen_at) VALUES (:id, clock_timestamp() - make_interval(secs => :age))
               ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at"""
        ),
        {"id": process, "age": age},
    )


def leave(tx: Transaction, process: UUID) -> None:
    """This API process ends; what it still had open is cut."""
    tx.run(text("DELETE FROM api_processes WHERE id = :id"), {"id": process})


def forget_requests(tx: Transaction) -> int:
    """Forget requests that can be repeated no more, and dead processes; the number of requests. Their jobs stay."""
    rows = tx.all(
        text(
            """DELETE FROM requests WHERE accepted_at < now() - make_interval(mins => :minutes)
                 AND (key IS NULL OR accepted_at < now() - make_interval(hours => :hours))
               RETURNING group_id"""
        ),
        {"hours": KEY_HOURS, "minutes": JOIN_MINUTES},
    )
    tx.run(text("DELETE FROM api_processes WHERE seen_at < now() - interval '1 hour'"))
    return len(rows)
