"""Requests that create jobs, so that a repeated request joins the existing jobs; and leases of API processes.

A row is inserted together with its jobs. Its holder is the newest HTTP request for them. The end of that request is
recorded a moment later; if its process dies first, the expired lease of the process shows it.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from worker.core.errors import ERRORS
from worker.db.engine import Row, Transaction

# How long an idempotency key is valid (draft-ietf-httpapi-idempotency-key-header).
KEY_HOURS = 24
# How long a request without a key can be joined by an identical one.
JOIN_MINUTES = 30

# Temporary refusals that cost nothing. Their requests are not kept, so that the client can retry.
_TEMPORARY_CODES = sorted(
    code for code, kind in ERRORS.items() if kind.status in {429, 503} or code == "upstream_session_expired"
)
_REFUSED = """NOT EXISTS (SELECT 1 FROM jobs j WHERE j.group_id = r.group_id
    AND (j.state <> 'failed' OR j.submitted_at IS NOT NULL OR j.error_code <> ALL(:temporary_codes)))"""


@dataclass(frozen=True, slots=True)
class Holder:
    """An open HTTP request, its process, and the seconds after which its client disconnects (None = unknown)."""

    id: UUID
    process: UUID
    client_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class NewRequest:
    """The identity of a creating request: `key` and `fingerprint`, in the scope of `caller` and `route`."""

    caller: str
    route: str
    fingerprint: str
    group_id: UUID
    key: str | None = None


def _holder_values(holder: Holder) -> dict[str, Any]:
    return {"holder": holder.id, "process": holder.process, "client_timeout": holder.client_timeout}


def lock_duplicates(tx: Transaction, request: NewRequest) -> None:
    """Serialize identical requests until the commit, so that a duplicate sees the jobs of the first one."""
    tx.run(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:scope, 0))"),
        {"scope": f"{request.caller} {request.fingerprint}"},
    )


def insert_request(tx: Transaction, request: NewRequest, holder: Holder) -> bool:
    """Insert the row of a new group of jobs; False if its key is taken (that row is then committed and readable)."""
    row = tx.first(
        text(
            """INSERT INTO requests (group_id, caller, route, key, fingerprint, holder, process, gives_up_at)
               VALUES (:group_id, :caller, :route, :key, :fingerprint, :holder, :process,
                       clock_timestamp() + make_interval(secs => :client_timeout))
               ON CONFLICT DO NOTHING RETURNING group_id"""
        ),
        {
            "group_id": request.group_id,
            "caller": request.caller,
            "route": request.route,
            "key": request.key,
            "fingerprint": request.fingerprint,
            **_holder_values(holder),
        },
    )
    return row is not None


def find_by_key(tx: Transaction, request: NewRequest) -> "Row[tuple[UUID, str, bool]] | None":
    """Lock and return the earlier request with this key: `group_id`, `fingerprint`, and `refused` (at no cost)."""
    return tx.first(
        text(
            f"""SELECT r.group_id, r.fingerprint, {_REFUSED} AS refused FROM requests r
                WHERE r.caller = :caller AND r.route = :route AND r.key = :key FOR UPDATE OF r"""
        ),
        {"caller": request.caller, "route": request.route, "key": request.key, "temporary_codes": _TEMPORARY_CODES},
    )


def delete_request(tx: Transaction, group_id: UUID) -> None:
    """Delete a request, so that its key can be used again. The jobs stay."""
    tx.run(text("DELETE FROM requests WHERE group_id = :group_id"), {"group_id": group_id})


@dataclass(frozen=True, slots=True)
class EarlierRequest:
    """An earlier identical request. Ages are in seconds. A negative `client_timeout_age` is in the future."""

    group_id: UUID
    holder: UUID
    process: UUID
    joins: int
    ended_how: str | None
    ended_age: float | None
    held_age: float
    client_timeout_age: float | None
    seen_age: float | None  # of its process; None = the process has ended
    cancelled: bool


_SIMILAR = text(
    f"""/* similar_requests */
    SELECT r.group_id, r.holder, r.process, r.joins, r.ended_how,
        CAST(extract(epoch FROM clock_timestamp() - r.ended_at) AS double precision) AS ended_age,
        CAST(extract(epoch FROM clock_timestamp() - r.held_at) AS double precision) AS held_age,
        CAST(extract(epoch FROM clock_timestamp() - r.gives_up_at) AS double precision) AS client_timeout_age,
        CAST(extract(epoch FROM clock_timestamp() - p.seen_at) AS double precision) AS seen_age,
        EXISTS (SELECT 1 FROM jobs c WHERE c.group_id = r.group_id AND c.state = 'cancelled') AS cancelled
    FROM requests r LEFT JOIN api_processes p ON p.id = r.process
    WHERE r.fingerprint = :fingerprint AND r.key IS NULL AND r.caller = :caller AND r.route = :route
      AND r.accepted_at > clock_timestamp() - make_interval(mins => :minutes)
      AND NOT EXISTS (SELECT 1 FROM jobs d WHERE d.group_id = r.group_id AND d.deleted_at IS NOT NULL)
      AND NOT ({_REFUSED})
    ORDER BY r.accepted_at DESC LIMIT 100"""
)


def find_similar_requests(tx: Transaction, request: NewRequest) -> list[EarlierRequest]:
    """Return identical requests without a key of the last half hour, newest first."""
    values = {
        "fingerprint": request.fingerprint,
        "caller": request.caller,
        "route": request.route,
        "minutes": JOIN_MINUTES,
        "temporary_codes": _TEMPORARY_CODES,
    }
    return [EarlierRequest(**row._mapping) for row in tx.all(_SIMILAR, values)]  # noqa: SLF001 - SQLAlchemy's public name


def take_over(tx: Transaction, earlier: EarlierRequest, holder: Holder) -> bool:
    """Make a repeated request the holder of these jobs; False if another request was faster."""
    row = tx.first(
        text(
            """UPDATE requests SET holder = :holder, process = :process, joins = joins + 1, ended_at = NULL,
                   ended_how = NULL, held_at = clock_timestamp(),
                   gives_up_at = clock_timestamp() + make_interval(secs => :client_timeout)
               WHERE group_id = :group_id AND holder = :before RETURNING group_id"""
        ),
        {"group_id": earlier.group_id, "before": earlier.holder, **_holder_values(holder)},
    )
    return row is not None


@dataclass(frozen=True, slots=True)
class RequestEnd:
    """How an HTTP request ended: answered, timeout (the wait ran out) or cut (the client disconnected)."""

    group_id: UUID
    holder: UUID
    outcome: str


def record_request_ends(tx: Transaction, ended: list[RequestEnd]) -> None:
    """Record the ends of HTTP requests. Requests that are no longer the holder are ignored."""
    if not ended:
        return
    tx.run(
        text(
            """UPDATE requests r SET ended_at = clock_timestamp(), ended_how = e.outcome
               FROM unnest(CAST(:groups AS uuid[]), CAST(:holders AS uuid[]), CAST(:outcomes AS text[]))
                   AS e (group_id, holder, outcome)
               WHERE r.group_id = e.group_id AND r.holder = e.holder AND r.ended_at IS NULL"""
        ),
        {
            "groups": [end.group_id for end in ended],
            "holders": [end.holder for end in ended],
            "outcomes": [end.outcome for end in ended],
        },
    )


def record_heartbeat(tx: Transaction, process: UUID, *, age: float) -> None:
    """Renew the lease of an API process as of `age` seconds ago. Every end before that moment has been recorded."""
    tx.run(
        text(
            """INSERT INTO api_processes (id, seen_at) VALUES (:id, clock_timestamp() - make_interval(secs => :age))
               ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at"""
        ),
        {"id": process, "age": age},
    )


def remove_process(tx: Transaction, process: UUID) -> None:
    """Release the lease of an API process. Its open requests count as cut."""
    tx.run(text("DELETE FROM api_processes WHERE id = :id"), {"id": process})


def delete_expired_requests(tx: Transaction) -> int:
    """Delete requests that can no longer be joined, and dead processes; return the number of requests."""
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
