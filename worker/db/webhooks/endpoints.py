"""Webhook endpoints of owners. Secrets are encrypted; only the task that signs deliveries decrypts them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.webhook_policy import FAILING_DAYS
from worker.db.engine import Transaction

MAX_PER_OWNER = 20

# Columns that callers may see: all but the secrets.
_PUBLIC_COLUMNS = """id, owner, user_id, api_key_id, url, description, events, previous_until, disabled_at,
    disabled_reason, failing_since, slow_until, created_at"""


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """A validated endpoint before it has a row; `secret` is encrypted for `secret_context(id)`."""

    id: UUID
    owner: str
    url: str
    events: list[str]
    secret: str = field(repr=False)
    description: str = ""
    user_id: UUID | None = None
    api_key_id: UUID | None = None


def secret_context(endpoint_id: UUID) -> str:
    """Encryption context of an endpoint's secrets."""
    return f"webhook:{endpoint_id.hex}"


def add_endpoint(tx: Transaction, new: NewEndpoint) -> Row[Any] | None:
    """Insert an endpoint and return its row; None if the owner already has `MAX_PER_OWNER`."""
    # Concurrent inserts must not both pass the count below.
    tx.run(
        text("SELECT pg_advisory_xact_lock(hashtextextended('webhook-endpoints:' || :owner, 0))"), {"owner": new.owner}
    )
    return tx.first(
        text(
            f"""INSERT INTO webhook_endpoints (id, owner, user_id, api_key_id, url, description, events, secret)
                SELECT CAST(:id AS uuid), CAST(:owner AS text), CAST(:user_id AS uuid), CAST(:api_key_id AS uuid),
                       CAST(:url AS text), CAST(:description AS text), CAST(:events AS text[]), CAST(:secret AS text)
                WHERE (SELECT count(*) FROM webhook_endpoints WHERE owner = :owner) < :most
                RETURNING {_PUBLIC_COLUMNS}"""
        ),
        {
            "id": new.id,
            "owner": new.owner,
            "user_id": new.user_id,
            "api_key_id": new.api_key_id,
            "url": new.url,
            "description": new.description,
            "events": new.events,
            "secret": new.secret,
            "most": MAX_PER_OWNER,
        },
    )


def list_endpoints(tx: Transaction, owner: str) -> list[Row[Any]]:
    """Return the endpoints of an owner, oldest first."""
    return tx.all(
        text(f"SELECT {_PUBLIC_COLUMNS} FROM webhook_endpoints WHERE owner = :owner ORDER BY created_at, id"),
        {"owner": owner},
    )


def get_endpoint(tx: Transaction, endpoint_id: UUID, owner: str) -> Row[Any] | None:
    """Return one endpoint; None if it does not exist or has another owner (I9)."""
    return tx.first(
        text(f"SELECT {_PUBLIC_COLUMNS} FROM webhook_endpoints WHERE id = :id AND owner = :owner"),
        {"id": endpoint_id, "owner": owner},
    )


def change_endpoint(
    tx: Transaction,
    endpoint_id: UUID,
    owner: str,
    *,
    url: str | None = None,
    description: str | None = None,
    events: Sequence[str] | None = None,
) -> Row[Any] | None:
    """Update the given values. A new URL resets the failure state."""
    return tx.first(
        text(
            f"""UPDATE webhook_endpoints SET url = coalesce(:url, url),
                    description = coalesce(:description, description),
                    events = coalesce(CAST(:events AS text[]), events),
                    failing_since = CASE WHEN coalesce(:url, url) = url THEN failing_since END,
                    slow_until = CASE WHEN coalesce(:url, url) = url THEN slow_until END
                WHERE id = :id AND owner = :owner RETURNING {_PUBLIC_COLUMNS}"""
        ),
        {
            "id": endpoint_id,
            "owner": owner,
            "url": url,
            "description": description,
            "events": list(events) if events else None,
        },
    )


def rotate_secret(tx: Transaction, endpoint_id: UUID, owner: str, *, secret: str, keep_hours: int) -> Row[Any] | None:
    """Set a new encrypted secret. The previous one also signs for `keep_hours`."""
    return tx.first(
        text(
            f"""UPDATE webhook_endpoints SET previous_secret = CASE WHEN :hours > 0 THEN secret END,
                    previous_until = CASE WHEN :hours > 0 THEN now() + make_interval(hours => :hours) END,
                    secret = :secret
                WHERE id = :id AND owner = :owner RETURNING {_PUBLIC_COLUMNS}"""
        ),
        {"id": endpoint_id, "owner": owner, "secret": secret, "hours": keep_hours},
    )


def remove_endpoint(tx: Transaction, endpoint_id: UUID, owner: str) -> bool:
    """Delete an endpoint with all its deliveries; False if it does not exist."""
    row = tx.first(
        text("DELETE FROM webhook_endpoints WHERE id = :id AND owner = :owner RETURNING id"),
        {"id": endpoint_id, "owner": owner},
    )
    return row is not None


def enable_endpoint(tx: Transaction, endpoint_id: UUID, owner: str) -> None:
    """Enable an endpoint and reset its failure state."""
    tx.run(
        text(
            """UPDATE webhook_endpoints SET disabled_at = NULL, disabled_reason = NULL, failing_since = NULL,
                   slow_until = NULL
               WHERE id = :id AND owner = :owner AND disabled_at IS NOT NULL"""
        ),
        {"id": endpoint_id, "owner": owner},
    )


def disable_endpoint(tx: Transaction, endpoint_id: UUID, *, reason: str) -> bool:
    """Disable an endpoint; True if it was enabled. The caller gives up its pending deliveries (`give_up_pending`)."""
    row = tx.first(
        text(
            """UPDATE webhook_endpoints SET disabled_at = clock_timestamp(), disabled_reason = :reason
               WHERE id = :id AND disabled_at IS NULL RETURNING id"""
        ),
        {"id": endpoint_id, "reason": reason},
    )
    return row is not None


# --- outcome of deliveries; always written before the delivery's own row, to keep one lock order ---


def record_success(tx: Transaction, endpoint_id: UUID) -> None:
    """Record a successful delivery: the endpoint is no longer failing."""
    # Usually there is nothing to write and no row to lock.
    tx.run(
        text("UPDATE webhook_endpoints SET failing_since = NULL WHERE id = :id AND failing_since IS NOT NULL"),
        {"id": endpoint_id},
    )


def record_failure(tx: Transaction, endpoint_id: UUID, *, pause: float | None) -> None:
    """Record a failed delivery; `pause` = seconds for which all deliveries of the endpoint wait."""
    tx.run(
        text(
            """UPDATE webhook_endpoints SET failing_since = coalesce(failing_since, clock_timestamp()),
                   slow_until = greatest(slow_until,
                       clock_timestamp() + make_interval(secs => CAST(:pause AS double precision)))
               WHERE id = :id"""
        ),
        {"id": endpoint_id, "pause": pause},
    )


def pause_endpoint(tx: Transaction, endpoint_id: UUID, *, seconds: float) -> None:
    """Let all deliveries of the endpoint wait, without a failure of it."""
    tx.run(
        text(
            """UPDATE webhook_endpoints SET slow_until = greatest(slow_until,
                   clock_timestamp() + make_interval(secs => :seconds)) WHERE id = :id"""
        ),
        {"id": endpoint_id, "seconds": seconds},
    )


def get_failing_endpoint(tx: Transaction, endpoint_id: UUID) -> Row[Any] | None:
    """Return the endpoint if it has been failing for `FAILING_DAYS`, else None."""
    return tx.first(
        text(
            """SELECT failing_since FROM webhook_endpoints
               WHERE id = :id AND disabled_at IS NULL AND failing_since <= now() - make_interval(days => :days)"""
        ),
        {"id": endpoint_id, "days": FAILING_DAYS},
    )


# --- cleanup ---


def delete_unproven(tx: Transaction, *, days: int) -> int:
    """Delete endpoints of session ids without an accepted job within `days`; return how many.

    Session ids can be invented, and each could leave endpoints here. Each endpoint is checked once: it stays
    permanently if upstream accepted a job of its owner.
    """
    old = "owner LIKE 'tokens:%' AND NOT proven AND created_at < now() - make_interval(days => :days)"
    worked = "EXISTS (SELECT 1 FROM jobs j WHERE j.owner = e.owner AND j.submitted_at IS NOT NULL)"
    tx.run(text(f"UPDATE webhook_endpoints e SET proven = true WHERE {old} AND {worked}"), {"days": days})
    deleted = tx.all(
        text(f"/* remove_unproven */ DELETE FROM webhook_endpoints e WHERE {old} AND NOT {worked} RETURNING id"),
        {"days": days},
    )
    return len(deleted)
