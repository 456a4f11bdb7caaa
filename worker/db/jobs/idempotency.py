"""Requests that create jobs, so that a repeated request joins the existing jobs; and leases of API processes.

A row is inserted together with its jobs. Its holder is the newest HTTP request for them. The end of that request is
recorded a moment later; if its process dies first, the expired lease of the process shows it.
"""

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from worker.core.errors import ERRORS, Fault
from worker.core.job_state import in_group
from worker.db.engine import Row, Transaction

# How long an idempotency key is valid (draft-ietf-httpapi-idempotency-key-header).
KEY_HOURS = 24
# How long a request without a key can be joined by an identical one.
JOIN_MINUTES = 30

# Content that upstream rejected: the same request gets the same refusal.
_CONTENT_CODES = sorted(code for code, kind in ERRORS.items() if kind.fault is Fault.CONTENT)
# Temporary refusals that cost nothing. Their requests are not kept, so that the client can retry.
_TEMPORARY_CODES = sorted(
    code for code, kind in ERRORS.items() if kind.status in {429, 503} or code == "upstream_session_expired"
)
_REFUSED = f"""NOT EXISTS (SELECT 1 FROM jobs j WHERE {in_group("r.group_id", "j")}
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
    body_digest: str = ""  # of the body as it was sent; the fingerprint ignores fields without an effect


def _holder_values(holder: Holder) -> dict[str, Any]:
    return {"holder": holder.id, "process": holder.process, "client_timeout": holder.client_timeout}


def lock_duplicates(tx: Transaction, request: NewRequest) -> None:
    """Serialize identical requests until the commit, so that a duplicate sees the jobs of the first one."""
    tx.run(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:scope, 0))"),
        {"scope": _duplicate_scope(request)},
    )


# In one order, so that two batches with the same requests do not wait for each other.
_LOCK_ALL = text(
    """SELECT pg_advisory_xact_lock(sorted.lock) FROM (
           SELECT DISTINCT hashtextextended(scope, 0) AS lock FROM unnest(CAST(:scopes AS text[])) AS s (scope)
           ORDER BY lock) sorted"""
)


def lock_all_duplicates(tx: Transaction, requests: list[NewRequest]) -> None:
    """Like `lock_duplicates`, for each of these requests."""
    tx.run(_LOCK_ALL, {"scopes": [_duplicate_scope(request) for request in requests]})


def _duplicate_scope(request: NewRequest) -> str:
    return f"{request.caller} {request.fingerprint}"


_INSERT_ALL = text(
    """INSERT INTO requests (group_id, caller, route, key, fingerprint, body_digest, holder, process, gives_up_at)
       SELECT group_id, caller, route, key, fingerprint, body_digest, holder, process,
           clock_timestamp() + make_interval(secs => client_timeout)
       FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (group_id uuid, caller text, route text, key text,
           fingerprint text, body_digest text, holder uuid, process uuid, client_timeout double precision)
       ORDER BY key, group_id
       ON CONFLICT DO NOTHING RETURNING group_id"""
)


def insert_requests(tx: Transaction, requests: list[tuple[NewRequest, Holder]]) -> set[UUID]:
    """Insert the rows of new groups of jobs; return the groups whose key was not taken, like `insert_request`."""
    rows = [
        {
            "group_id": str(request.group_id),
            "caller": request.caller,
            "route": request.route,
            "key": request.key,
            "fingerprint": request.fingerprint,
            "body_digest": request.body_digest,
            "holder": str(holder.id),
            "process": str(holder.process),
            "client_timeout": holder.client_timeout,
        }
        for request, holder in requests
    ]
    return {row.group_id for row in tx.all(_INSERT_ALL, {"rows": json.dumps(rows)})} if rows else set()


def insert_request(tx: Transaction, request: NewRequest, holder: Holder) -> bool:
    """Insert the row of a new group of jobs; False if its key is taken (that row is then committed and readable)."""
    row = tx.first(
        text(
            """INSERT INTO requests (group_id, caller, route, key, fingerprint, body_digest, holder, process,
                                     gives_up_at)
               VALUES (:group_id, :caller, :route, :key, :fingerprint, :body_digest, :holder, :process,
                       clock_timestamp() + make_interval(secs => :client_timeout))
               ON CONFLICT DO NOTHING RETURNING group_id"""
        ),
        {
            "group_id": request.group_id,
            "caller": request.caller,
            "route": request.route,
            "key": request.key,
            "fingerprint": request.fingerprint,
            "body_digest": request.body_digest,
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
    body_digest: str = ""
    failed: bool = False  # it was answered with the failure of its jobs
    failure: "Failure | None" = None  # of its jobs; None unless all of them failed


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of all jobs of a request: its age, the age at which it was last repeated (0 = never), in seconds."""

    age: float
    repeated_at: float
    content: bool  # upstream rejected the content


_SIMILAR = text(
    f"""/* similar_requests */
    SELECT s.fingerprint AS asked_fingerprint, s.route AS asked_route, found.*
    FROM unnest(CAST(:fingerprints AS text[]), CAST(:routes AS text[])) AS s (fingerprint, route)
    CROSS JOIN LATERAL (
        SELECT r.group_id, r.holder, r.process, r.joins, r.ended_how,
            CAST(extract(epoch FROM clock_timestamp() - r.ended_at) AS double precision) AS ended_age,
            CAST(extract(epoch FROM clock_timestamp() - r.held_at) AS double precision) AS held_age,
            CAST(extract(epoch FROM clock_timestamp() - r.gives_up_at) AS double precision) AS client_timeout_age,
            CAST(extract(epoch FROM clock_timestamp() - p.seen_at) AS double precision) AS seen_age,
            EXISTS (SELECT 1 FROM jobs c WHERE {in_group("r.group_id", "c")} AND c.state = 'cancelled') AS cancelled,
            r.body_digest, r.failed, f.all_failed, f.content,
            CAST(extract(epoch FROM clock_timestamp() - f.finished_at) AS double precision) AS failure_age,
            CAST(coalesce(extract(epoch FROM r.failure_repeated_at - f.finished_at), 0) AS double precision)
                AS failure_repeated_at
        FROM requests r LEFT JOIN api_processes p ON p.id = r.process
        CROSS JOIN LATERAL (
            SELECT bool_and(m.state = 'failed') AS all_failed, max(m.finished_at) AS finished_at,
                bool_or(m.error_code = ANY(:content_codes)) AS content
            FROM jobs m WHERE {in_group("r.group_id", "m")}) f
        WHERE r.fingerprint = s.fingerprint AND r.key IS NULL AND r.caller = :caller AND r.route = s.route
          AND r.accepted_at > clock_timestamp() - make_interval(mins => :minutes)
          AND NOT EXISTS (SELECT 1 FROM jobs d WHERE {in_group("r.group_id", "d")} AND d.deleted_at IS NOT NULL)
          AND NOT ({_REFUSED})
        ORDER BY r.accepted_at DESC LIMIT 100) found"""
)


def find_similar_requests(tx: Transaction, request: NewRequest) -> list[EarlierRequest]:
    """Return identical requests without a key of the last half hour, newest first."""
    return find_all_similar_requests(tx, [request])[request]


def find_all_similar_requests(tx: Transaction, requests: list[NewRequest]) -> dict[NewRequest, list[EarlierRequest]]:
    """Return the identical requests of each of these requests of one caller, like `find_similar_requests`."""
    asked = sorted({(request.fingerprint, request.route) for request in requests})
    values = {
        "fingerprints": [fingerprint for fingerprint, _ in asked],
        "routes": [route for _, route in asked],
        "caller": requests[0].caller,
        "minutes": JOIN_MINUTES,
        "temporary_codes": _TEMPORARY_CODES,
        "content_codes": _CONTENT_CODES,
    }
    found: dict[tuple[str, str], list[EarlierRequest]] = {}
    for row in tx.all(_SIMILAR, values):
        columns = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
        identity = (columns.pop("asked_fingerprint"), columns.pop("asked_route"))
        found.setdefault(identity, []).append(_earlier_request(columns))
    return {request: found.get((request.fingerprint, request.route), []) for request in requests}


def _earlier_request(columns: dict[str, Any]) -> EarlierRequest:
    all_failed, content = columns.pop("all_failed"), columns.pop("content")
    failure = Failure(columns.pop("failure_age"), columns.pop("failure_repeated_at"), content)
    return EarlierRequest(**columns, failure=failure if all_failed else None)


def record_repeated_failure(tx: Transaction, group_id: UUID) -> None:
    """Record that the failure of this request is sent again. The holder stays: nothing is awaited."""
    tx.run(
        text("UPDATE requests SET failure_repeated_at = clock_timestamp() WHERE group_id = :group_id"),
        {"group_id": group_id},
    )


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
    failed: bool = False  # the answer was the failure of its jobs


def record_request_ends(tx: Transaction, ended: list[RequestEnd]) -> None:
    """Record the ends of HTTP requests. Requests that are no longer the holder are ignored."""
    if not ended:
        return
    tx.run(
        text(
            """UPDATE requests r SET ended_at = clock_timestamp(), ended_how = e.outcome, failed = e.failed
               FROM unnest(CAST(:groups AS uuid[]), CAST(:holders AS uuid[]), CAST(:outcomes AS text[]),
                   CAST(:failed AS boolean[])) AS e (group_id, holder, outcome, failed)
               WHERE r.group_id = e.group_id AND r.holder = e.holder AND r.ended_at IS NULL"""
        ),
        {
            "groups": [end.group_id for end in ended],
            "holders": [end.holder for end in ended],
            "outcomes": [end.outcome for end in ended],
            "failed": [end.failed for end in ended],
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
