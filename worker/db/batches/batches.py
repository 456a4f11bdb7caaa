"""Rows of batches, and their steps: validating -> in_progress -> finalizing -> completed, expired or cancelled.

An API process works on a step while it holds a lease. If it dies, another one does the step again from the beginning:
each step ends with one transaction, which checks that the lease is still its own. So a batch is accepted as a whole,
with all of its jobs, or not at all.
"""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.job_state import FINAL, UNFINISHED, in_group, sql_list
from worker.db.engine import Transaction

LEASE_SECONDS = 60
# A step that ended its process so often is given up.
MOST_TRIES = 3
OPEN_STATES = ("validating", "in_progress", "finalizing", "cancelling")


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch before its lines were read. `options`: see `api/batches/options.py`."""

    id: UUID
    owner: str
    user_id: UUID
    api_key_id: UUID
    endpoint: str
    input_file_id: UUID
    options: dict[str, Any]
    digest: str
    expires_at: datetime
    metadata: dict[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    not_before: datetime | None = None
    idle: bool = False


def add_batch(tx: Transaction, new: NewBatch) -> bool:
    """Insert a batch that is to be validated; False if the idempotency key of its API key is in use."""
    row = tx.first(
        text(
            """/* add_batch */
            INSERT INTO batches (id, owner, user_id, api_key_id, endpoint, input_file_id, options, digest, expires_at,
                                 metadata, idempotency_key, not_before, idle)
            VALUES (:id, :owner, :user_id, :api_key_id, :endpoint, :input_file_id, CAST(:options AS jsonb), :digest,
                    :expires_at, CAST(:metadata AS jsonb), :idempotency_key, :not_before, :idle)
            ON CONFLICT (api_key_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING RETURNING id"""
        ),
        {
            "id": new.id,
            "owner": new.owner,
            "user_id": new.user_id,
            "api_key_id": new.api_key_id,
            "endpoint": new.endpoint,
            "input_file_id": new.input_file_id,
            "options": json.dumps(new.options),
            "digest": new.digest,
            "expires_at": new.expires_at,
            "metadata": json.dumps(new.metadata),
            "idempotency_key": new.idempotency_key,
            "not_before": new.not_before,
            "idle": new.idle,
        },
    )
    return row is not None


def find_by_key(tx: Transaction, api_key_id: UUID, idempotency_key: str) -> Row[Any] | None:
    """Return the batch that an idempotency key made."""
    return tx.first(
        text("SELECT * FROM batches WHERE api_key_id = :id AND idempotency_key = :key"),
        {"id": api_key_id, "key": idempotency_key},
    )


def count_validating(tx: Transaction, owner: str) -> int:
    """Return how many batches of an owner wait for their validation."""
    row = tx.first(
        text("SELECT count(*) AS n FROM batches WHERE state = 'validating' AND owner = :owner"), {"owner": owner}
    )
    return int(row.n) if row is not None else 0


_OF_KEY = """(CAST(:key_root AS uuid) IS NULL OR api_key_id IN (
    SELECT id FROM api_keys WHERE id = :key_root OR root_id = :key_root))"""


def find_batch(
    tx: Transaction, batch_id: UUID, *, owner: str, key_root: UUID | None, lock: bool = False
) -> Row[Any] | None:
    """Return a batch of an owner; None if there is none. `key_root` = only batches of this key and its rotations."""
    locking = "FOR NO KEY UPDATE" if lock else ""
    return tx.first(
        text(f"SELECT * FROM batches WHERE id = :id AND owner = :owner AND {_OF_KEY} {locking}"),
        {"id": batch_id, "owner": owner, "key_root": key_root},
    )


def list_batches(
    tx: Transaction, *, owner: str, key_root: UUID | None, after: UUID | None, limit: int
) -> list[Row[Any]]:
    """Return batches of an owner, newest first. `after` = the last id of the previous page."""
    return tx.all(
        text(
            f"""SELECT * FROM batches WHERE owner = :owner AND {_OF_KEY}
                AND (CAST(:after AS uuid) IS NULL OR id < :after) ORDER BY id DESC LIMIT :limit"""
        ),
        {"owner": owner, "key_root": key_root, "after": after, "limit": limit},
    )


# The lines of a batch by the ends of their jobs: a line is completed when one of its jobs has results.
_COUNT_LINES = text(
    f"""/* count_lines */
    WITH lines AS (
        SELECT batch_id, group_id, bool_or(state = 'succeeded') AS succeeded,
            bool_and(state IN {sql_list(FINAL)}) AS ended,
            bool_or(state NOT IN {sql_list(FINAL)} AND state NOT IN ('held', 'queued')) AS at_work,
            bool_or(error_code = 'job_expired') AS expired
        FROM jobs WHERE batch_id = ANY(:ids) GROUP BY batch_id, group_id)
    SELECT batch_id, count(*) FILTER (WHERE ended AND succeeded) AS completed,
        count(*) FILTER (WHERE ended AND NOT succeeded) AS failed, count(*) FILTER (WHERE at_work) AS at_work,
        coalesce(bool_or(expired AND NOT succeeded), false) AS expired
    FROM lines GROUP BY batch_id"""
)


@dataclass(frozen=True, slots=True)
class LineCounts:
    """Lines of a batch that have ended with and without results, and those that accounts work on."""

    completed: int = 0
    failed: int = 0
    at_work: int = 0
    expired: bool = False  # a line was not begun in time


def count_lines(tx: Transaction, ids: list[UUID]) -> dict[UUID, LineCounts]:
    """Return the counts of batches that have jobs."""
    rows = tx.all(_COUNT_LINES, {"ids": ids}) if ids else []
    return {row.batch_id: LineCounts(row.completed, row.failed, row.at_work, row.expired) for row in rows}


def costs(tx: Transaction, batch_id: UUID) -> list[Row[Any]]:
    """Return `currency` (None = credits), `expected` and `charged` of a batch: what its jobs cost as far as known."""
    return tx.all(
        text(
            """/* batch_costs */
            SELECT currency, coalesce(sum(price), 0) AS expected, coalesce(sum(charged), 0) AS charged
            FROM jobs WHERE batch_id = :id GROUP BY currency ORDER BY currency NULLS FIRST"""
        ),
        {"id": batch_id},
    )


# --- steps ---

# One batch of an owner at a time, so that many batches of one owner hold up nobody.
_CLAIM = text(
    f"""/* claim_batch */
    UPDATE batches SET holder = :holder, tries = tries + 1,
        lease_until = clock_timestamp() + make_interval(secs => :lease)
    WHERE id = (
        SELECT b.id FROM batches b
        WHERE b.state IN ('validating', 'finalizing', 'cancelling')
          AND (b.lease_until IS NULL OR b.lease_until <= clock_timestamp())
          AND NOT EXISTS (
              SELECT 1 FROM batches o WHERE o.owner = b.owner AND o.id <> b.id AND o.lease_until > clock_timestamp()
                AND o.state IN ('validating', 'finalizing', 'cancelling'))
          AND (b.state <> 'cancelling' OR EXISTS (
              SELECT 1 FROM jobs j WHERE j.batch_id = b.id AND j.cancel_requested_at IS NULL
                AND j.state IN {sql_list(UNFINISHED)}))
        ORDER BY b.state = 'validating', b.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING *"""
)


def claim_step(tx: Transaction, holder: UUID) -> Row[Any] | None:
    """Claim a batch with a step to do for one lease; None if there is none. `tries` counts this claim."""
    return tx.first(_CLAIM, {"holder": holder, "lease": LEASE_SECONDS})


def renew_lease(tx: Transaction, batch_id: UUID, holder: UUID, *, checked: int | None = None) -> bool:
    """Extend the lease; False if another process has it. `checked` = lines read so far, for callers that watch."""
    row = tx.first(
        text(
            """UPDATE batches SET lease_until = clock_timestamp() + make_interval(secs => :lease),
                   checked = coalesce(CAST(:checked AS integer), checked)
               WHERE id = :id AND holder = :holder RETURNING id"""
        ),
        {"id": batch_id, "holder": holder, "lease": LEASE_SECONDS, "checked": checked},
    )
    return row is not None


def give_back(tx: Transaction, batch_id: UUID, holder: UUID, *, seconds: float) -> None:
    """End the lease after a temporary fault; the step is due again in `seconds`, and the try does not count."""
    tx.run(
        text(
            """UPDATE batches SET lease_until = clock_timestamp() + make_interval(secs => :seconds), holder = NULL,
                   tries = greatest(tries - 1, 0) WHERE id = :id AND holder = :holder"""
        ),
        {"id": batch_id, "holder": holder, "seconds": seconds},
    )


def mark_in_progress(
    tx: Transaction, batch_id: UUID, holder: UUID, *, lines: int, price: dict[str, Any]
) -> Row[Any] | None:
    """validating -> in_progress, with its jobs, in one transaction. None = the lease is lost, or it was cancelled."""
    return tx.first(
        text(
            """UPDATE batches SET state = 'in_progress', in_progress_at = clock_timestamp(), lines = :lines,
                   checked = :lines, price = CAST(:price AS jsonb), holder = NULL, lease_until = NULL, tries = 0
               WHERE id = :id AND holder = :holder AND state = 'validating' RETURNING *"""
        ),
        {"id": batch_id, "holder": holder, "lines": lines, "price": json.dumps(price)},
    )


def mark_failed(
    tx: Transaction, batch_id: UUID, holder: UUID, *, errors: dict[str, Any], lines: int, price: dict[str, Any] | None
) -> Row[Any] | None:
    """validating -> failed: nothing of it was accepted."""
    return tx.first(
        text(
            """UPDATE batches SET state = 'failed', failed_at = clock_timestamp(), errors = CAST(:errors AS jsonb),
                   lines = :lines, checked = :lines, price = CAST(:price AS jsonb), holder = NULL, lease_until = NULL
               WHERE id = :id AND holder = :holder AND state = 'validating' RETURNING *"""
        ),
        {
            "id": batch_id,
            "holder": holder,
            "errors": json.dumps(errors),
            "lines": lines,
            "price": json.dumps(price) if price is not None else None,
        },
    )


def add_lines(tx: Transaction, batch_id: UUID, lines: list[dict[str, Any]]) -> None:
    """Insert lines: `n`, `custom_id`, `url`, `results` and `group_id` of each."""
    tx.run(
        text(
            """/* add_lines */
            INSERT INTO batch_lines (batch_id, n, custom_id, url, results, group_id)
            SELECT CAST(:id AS uuid), n, custom_id, url, results, group_id
            FROM jsonb_to_recordset(CAST(:lines AS jsonb))
                AS l (n integer, custom_id text, url text, results integer, group_id uuid)"""
        ),
        {"id": batch_id, "lines": json.dumps(lines, default=str)},
    )


def any_open(tx: Transaction) -> bool:
    """Return whether any batch has not ended."""
    return (
        tx.first(text("SELECT 1 FROM batches WHERE state = ANY(:states) LIMIT 1"), {"states": list(OPEN_STATES)})
        is not None
    )


def begin_ended(tx: Transaction, *, limit: int) -> int:
    """in_progress, cancelling -> finalizing: batches whose jobs have all ended; return how many."""
    rows = tx.all(
        text(
            f"""/* begin_ended */
            UPDATE batches SET state = 'finalizing', finalizing_at = clock_timestamp(), holder = NULL, tries = 0,
                lease_until = NULL
            WHERE id IN (
                SELECT b.id FROM batches b WHERE b.state IN ('in_progress', 'cancelling') AND NOT EXISTS (
                    SELECT 1 FROM jobs j WHERE j.batch_id = b.id AND j.state IN {sql_list(UNFINISHED)})
                ORDER BY b.id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED)
            RETURNING id"""
        ),
        {"limit": limit},
    )
    return len(rows)


@dataclass(frozen=True, slots=True)
class BatchEnd:
    """How a batch ended, and the files with its results."""

    state: str  # completed, expired, cancelled
    completed: int
    failed: int
    output_file_id: UUID | None
    error_file_id: UUID | None


def mark_ended(tx: Transaction, batch_id: UUID, holder: UUID, end: BatchEnd) -> Row[Any] | None:
    """finalizing -> its end. None = the lease is lost."""
    return tx.first(
        text(
            f"""UPDATE batches SET state = :state, {end.state}_at = clock_timestamp(), completed = :completed,
                   failed = :failed, output_file_id = :output, error_file_id = :errors, holder = NULL,
                   lease_until = NULL
               WHERE id = :id AND holder = :holder AND state = 'finalizing' RETURNING *"""
        ),
        {
            "id": batch_id,
            "holder": holder,
            "state": end.state,
            "completed": end.completed,
            "failed": end.failed,
            "output": end.output_file_id,
            "errors": end.error_file_id,
        },
    )


def set_paused(tx: Transaction, batch_id: UUID, *, paused: bool) -> None:
    """Pause a batch in progress, or let it continue."""
    moment = "coalesce(paused_at, clock_timestamp())" if paused else "NULL"
    tx.run(text(f"UPDATE batches SET paused_at = {moment} WHERE id = :id AND state = 'in_progress'"), {"id": batch_id})


def begin_cancel(tx: Transaction, batch_id: UUID) -> Row[Any] | None:
    """validating -> cancelled, in_progress -> cancelling. None = it has ended, or is ending."""
    return tx.first(
        text(
            """UPDATE batches SET cancelling_at = clock_timestamp(), holder = NULL, lease_until = NULL, tries = 0,
                   state = CASE state WHEN 'validating' THEN 'cancelled' ELSE 'cancelling' END,
                   cancelled_at = CASE state WHEN 'validating' THEN clock_timestamp() END, paused_at = NULL
               WHERE id = :id AND state IN ('validating', 'in_progress') RETURNING *"""
        ),
        {"id": batch_id},
    )


def lines_page(tx: Transaction, batch_id: UUID, *, after: int, limit: int) -> list[Row[Any]]:
    """Return lines with the ids of their jobs (`job_ids`, oldest first) in order, behind line number `after`."""
    return tx.all(
        text(
            f"""/* lines_page */
            SELECT l.*,
                (SELECT array_agg(j.id ORDER BY j.id) FROM jobs j WHERE {in_group("l.group_id", "j")}) AS job_ids
            FROM batch_lines l WHERE l.batch_id = :id AND l.n > :after ORDER BY l.n LIMIT :limit"""
        ),
        {"id": batch_id, "after": after, "limit": limit},
    )


def running_jobs(tx: Transaction, batch_id: UUID, *, limit: int) -> list[UUID]:
    """Return unfinished jobs of a batch without a request to cancel them."""
    rows = tx.all(
        text(
            f"""SELECT id FROM jobs WHERE batch_id = :id AND state IN {sql_list(UNFINISHED)}
                AND cancel_requested_at IS NULL ORDER BY id LIMIT :limit"""
        ),
        {"id": batch_id, "limit": limit},
    )
    return [row.id for row in rows]
