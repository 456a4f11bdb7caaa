"""The webhook outbox: `state_machine.py` inserts rows with each state change; this module claims and settles them.

A lane groups deliveries of one owner to one receiver, so a slow receiver delays only its own lane: an endpoint, or the
origin of a job's `webhook` URL. `delivery_log.py` has the deliveries as callers see them.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.settings import get_settings
from worker.core.webhook_policy import TEST_EVENT
from worker.db.engine import Transaction

# Maximum concurrent deliveries, so one receiver or owner cannot use all connections.
MAX_PER_LANE = 3
MAX_PER_OWNER = 6

# Part of a state change (`state_machine.py`): one row for the job's own `webhook` (final events only) and one for each
# subscribed endpoint. The lock makes the deletion of an endpoint wait for this statement.
OUTBOX_COLUMNS = "jobs.webhook_url, jobs.owner, jobs.api_key_id"
OUTBOX = """listening AS (
            SELECT e.id, e.url FROM upd JOIN webhook_endpoints e ON e.owner = upd.owner
                AND e.disabled_at IS NULL AND CAST(:event AS text) = ANY(e.events)
                AND (e.api_key_id IS NULL OR e.api_key_id = upd.api_key_id)
            FOR KEY SHARE OF e),
        outbox AS (
            INSERT INTO webhook_deliveries (id, job_id, endpoint_id, event, url, owner, lane, due_at)
            SELECT gen_random_uuid(), upd.id, CAST(NULL AS uuid), CAST(:event AS text), upd.webhook_url, upd.owner,
                   'place:' || upd.owner || ':'
                       || lower(coalesce(substring(upd.webhook_url FROM '^[^/]*//[^/?#]+'), upd.webhook_url)),
                   now()
            FROM upd WHERE upd.webhook_url IS NOT NULL AND CAST(:event AS text) <> 'job.started'
            UNION ALL
            SELECT gen_random_uuid(), upd.id, l.id, CAST(:event AS text), l.url, upd.owner,
                   'endpoint:' || CAST(l.id AS text), now()
            FROM upd CROSS JOIN listening l
            ON CONFLICT DO NOTHING)"""

_BATCH_ENDED = text(
    """/* batch_ended */
    WITH b AS (SELECT id, owner, api_key_id FROM batches WHERE id = :id),
    listening AS (
        SELECT e.id, e.url FROM b JOIN webhook_endpoints e ON e.owner = b.owner AND e.disabled_at IS NULL
            AND CAST(:event AS text) = ANY(e.events) AND (e.api_key_id IS NULL OR e.api_key_id = b.api_key_id)
        FOR KEY SHARE OF e)
    INSERT INTO webhook_deliveries (id, batch_id, endpoint_id, event, url, owner, lane, due_at)
    SELECT gen_random_uuid(), b.id, CAST(NULL AS uuid), CAST(:event AS text), CAST(:url AS text), b.owner,
           'place:' || b.owner || ':' || lower(coalesce(substring(CAST(:url AS text) FROM '^[^/]*//[^/?#]+'), :url)),
           now()
    FROM b WHERE CAST(:url AS text) IS NOT NULL
    UNION ALL
    SELECT gen_random_uuid(), b.id, l.id, CAST(:event AS text), l.url, b.owner, 'endpoint:' || CAST(l.id AS text), now()
    FROM b CROSS JOIN listening l
    ON CONFLICT DO NOTHING RETURNING id"""
)


def add_batch_event(tx: Transaction, batch_id: UUID, *, event: str, url: str | None) -> list[UUID]:
    """Insert the event of a batch that ends in this transaction: for its `webhook`, and for subscribed endpoints.

    Return the deliveries.
    """
    return [row.id for row in tx.all(_BATCH_ENDED, {"id": batch_id, "event": event, "url": url})]


def batch_of_event(tx: Transaction, batch_id: UUID) -> Row[Any] | None:
    """Return the batch that an event is about."""
    return tx.first(text("SELECT * FROM batches WHERE id = :id"), {"id": batch_id})


# `now()` where an index finds what is due: `clock_timestamp()` changes within a statement, so no index can use it.
# Walks the index from lane to lane and takes a few of each, so one lane with thousands does not hide the others.
_DUE = text(
    """/* due_deliveries */
    WITH RECURSIVE lanes AS (
        (SELECT lane FROM webhook_deliveries WHERE due_at IS NOT NULL ORDER BY lane LIMIT 1)
        UNION ALL
        SELECT (SELECT d.lane FROM webhook_deliveries d
                WHERE d.due_at IS NOT NULL AND d.lane > lanes.lane ORDER BY d.lane LIMIT 1)
        FROM lanes WHERE lanes.lane IS NOT NULL),
    waiting AS (
        SELECT d.id, d.due_at, d.owner, row_number() OVER (PARTITION BY d.owner ORDER BY d.nth, d.due_at, d.id) AS turn
        FROM lanes CROSS JOIN LATERAL (
            SELECT w.id, w.owner, w.due_at, w.event, w.endpoint_id, row_number() OVER (ORDER BY w.due_at) AS nth
            FROM webhook_deliveries w
            WHERE w.lane = lanes.lane AND w.due_at <= now() ORDER BY w.due_at LIMIT :most_per_lane) d
        LEFT JOIN webhook_endpoints e ON e.id = d.endpoint_id
        WHERE e.id IS NULL OR d.event = :test
            OR (e.disabled_at IS NULL AND coalesce(e.slow_until <= clock_timestamp(), true))),
    busy AS (
        SELECT owner, count(*) AS n FROM webhook_deliveries WHERE claimed_until > clock_timestamp() GROUP BY owner)
    SELECT w.id FROM waiting w LEFT JOIN busy b ON b.owner = w.owner
    WHERE w.turn <= :most_per_owner - coalesce(b.n, 0)
    ORDER BY w.turn, w.due_at LIMIT :limit"""
)


def due_deliveries(tx: Transaction, *, limit: int) -> list[UUID]:
    """Return due deliveries whose endpoint is enabled and not paused: as many as an owner may have in progress, the
    owners in turn.
    """
    most = {"most_per_lane": MAX_PER_LANE, "most_per_owner": MAX_PER_OWNER}
    rows = tx.all(_DUE, {"limit": limit, "test": TEST_EVENT, **most})
    return [row.id for row in rows]


def lane_of(tx: Transaction, delivery_id: UUID) -> Row[Any] | None:
    """Return `owner` and `lane` of a due delivery; None if it is not due."""
    return tx.first(
        text("SELECT owner, lane FROM webhook_deliveries WHERE id = :id AND due_at <= clock_timestamp()"),
        {"id": delivery_id},
    )


# Serialize the claims of one owner, because the count below must see all earlier claims.
_LOCK_OWNER = text("SELECT pg_advisory_xact_lock(hashtextextended('webhooks:' || :owner, 0))")
_CLAIM = text(
    """/* claim_delivery */
    WITH busy AS MATERIALIZED (
        SELECT count(*) AS owners, count(*) FILTER (WHERE lane = :lane) AS lanes FROM webhook_deliveries
        WHERE owner = :owner AND claimed_until > clock_timestamp()),
    pick AS (
        SELECT d.id, e.url FROM webhook_deliveries d LEFT JOIN webhook_endpoints e ON e.id = d.endpoint_id
        WHERE d.lane = :lane AND d.owner = :owner AND d.due_at <= now()
          AND (CAST(:id AS uuid) IS NULL OR d.id = :id)
          AND (SELECT lanes < :most_per_lane AND owners < :most_per_owner FROM busy)
          AND (e.id IS NULL OR d.event = :test
               OR (e.disabled_at IS NULL AND coalesce(e.slow_until <= clock_timestamp(), true)))
        ORDER BY d.due_at LIMIT 1 FOR NO KEY UPDATE OF d SKIP LOCKED),
    upd AS (
        UPDATE webhook_deliveries d SET tries = tries + 1, attempts = attempts + 1, url = coalesce(pick.url, d.url),
            due_at = clock_timestamp() + make_interval(secs => :lease),
            claimed_until = clock_timestamp() + make_interval(secs => :lease)
        FROM pick WHERE d.id = pick.id RETURNING d.*),
    begun AS (
        INSERT INTO webhook_attempts (delivery_id, n, at) SELECT id, attempts, clock_timestamp() FROM upd)
    SELECT upd.*, e.secret, CASE WHEN e.previous_until > clock_timestamp() THEN e.previous_secret END AS previous_secret
    FROM upd LEFT JOIN webhook_endpoints e ON e.id = upd.endpoint_id"""
)


def claim_delivery(tx: Transaction, *, owner: str, lane: str, delivery_id: UUID | None = None) -> Row[Any] | None:
    """Claim this delivery, or the next due one of its lane, for one lease. None if none is due or a limit is reached.

    The row includes the encrypted secrets of its endpoint and the attempt number (`attempts`), needed for the outcome.
    """
    tx.run(_LOCK_OWNER, {"owner": owner})
    return tx.first(
        _CLAIM,
        {
            "id": delivery_id,
            "owner": owner,
            "lane": lane,
            "lease": get_settings().lease_seconds,
            "most_per_lane": MAX_PER_LANE,
            "most_per_owner": MAX_PER_OWNER,
            "test": TEST_EVENT,
        },
    )


_RECORD_ATTEMPT = text(
    """UPDATE webhook_attempts SET status = :status, error = :error, seconds = :seconds
       WHERE delivery_id = :id AND n = :n"""
)
_MAX_ERROR_CHARS = 500


def record_delivered(tx: Transaction, delivery_id: UUID, *, attempt: int, status: int, seconds: float) -> None:
    """Record a successful attempt."""
    values = {"id": delivery_id, "n": attempt, "status": status, "error": None, "seconds": seconds}
    tx.run(
        text(
            """UPDATE webhook_deliveries SET due_at = NULL, claimed_until = NULL, delivered_at = clock_timestamp(),
                   given_up_at = NULL, last_status = :status, last_error = NULL
               WHERE id = :id AND attempts = :n"""
        ),
        values,
    )
    tx.run(_RECORD_ATTEMPT, values)


def record_failed(
    tx: Transaction,
    delivery_id: UUID,
    *,
    attempt: int,
    status: int | None,
    error: str,
    seconds: float,
    delay: float | None,
) -> None:
    """Record a failed attempt: due again after `delay` seconds, or given up if None.

    A delivery that was given up meanwhile, because its endpoint was disabled, stays given up.
    """
    values = {"id": delivery_id, "n": attempt, "status": status, "error": error[:_MAX_ERROR_CHARS], "seconds": seconds}
    tx.run(
        text(
            """UPDATE webhook_deliveries SET claimed_until = NULL, last_status = :status, last_error = :error,
                   due_at = CASE WHEN given_up_at IS NULL
                                 THEN clock_timestamp() + make_interval(secs => CAST(:delay AS double precision)) END,
                   given_up_at = CASE WHEN CAST(:delay AS double precision) IS NULL
                                      THEN coalesce(given_up_at, clock_timestamp()) ELSE given_up_at END
               WHERE id = :id AND attempts = :n AND delivered_at IS NULL"""
        ),
        {**values, "delay": delay},
    )
    tx.run(_RECORD_ATTEMPT, values)


def put_off(tx: Transaction, delivery_id: UUID, *, attempt: int, reason: str, seconds: float) -> None:
    """Undo an attempt that sent nothing: the delivery is due again after `seconds`, and no try is counted."""
    values = {"id": delivery_id, "n": attempt, "reason": reason, "seconds": seconds}
    tx.run(
        text(
            """UPDATE webhook_deliveries SET claimed_until = NULL, tries = tries - 1, attempts = attempts - 1,
                   last_error = :reason, due_at = CASE WHEN given_up_at IS NULL
                       THEN clock_timestamp() + make_interval(secs => CAST(:seconds AS double precision)) END
               WHERE id = :id AND attempts = :n AND delivered_at IS NULL"""
        ),
        values,
    )
    tx.run(text("DELETE FROM webhook_attempts WHERE delivery_id = :id AND n = :n"), values)


def give_up_pending(tx: Transaction, endpoint_id: UUID | None = None) -> int:
    """Give up pending deliveries of one disabled endpoint, or of all; return how many. They can be replayed.

    Run periodically for all, because an event may be inserted at the moment its endpoint is disabled.
    """
    rows = tx.all(
        text(
            """/* give_up_pending */
            UPDATE webhook_deliveries d SET due_at = NULL, given_up_at = clock_timestamp(),
                last_error = left('endpoint disabled: ' || e.disabled_reason, 500)
            FROM webhook_endpoints e
            WHERE e.id = d.endpoint_id AND e.disabled_at IS NOT NULL AND d.due_at IS NOT NULL AND d.event <> :test
              AND (CAST(:endpoint_id AS uuid) IS NULL OR e.id = :endpoint_id)
            RETURNING d.id"""
        ),
        {"endpoint_id": endpoint_id, "test": TEST_EVENT},
    )
    return len(rows)


def delete_settled(tx: Transaction, *, days: int, limit: int) -> int:
    """Delete settled deliveries older than `days`, with their attempts; return how many."""
    rows = tx.all(
        text(
            """/* remove_settled_deliveries */
            DELETE FROM webhook_deliveries WHERE id IN (
                SELECT id FROM webhook_deliveries
                WHERE due_at IS NULL AND created_at < now() - make_interval(days => :days)
                ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED)
            RETURNING id"""
        ),
        {"days": days, "limit": limit},
    )
    return len(rows)
