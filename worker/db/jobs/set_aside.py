"""Queued jobs whose references are being fetched. They hold no slot; `due_at` is the lease of the fetch.

`claims.claim_batch` sets a job aside instead of claiming it. All functions expect the attempt of then: a job that was
claimed, cancelled or set aside again in the meantime is left alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.observability.job_context import Origin
from worker.core.settings import get_settings
from worker.db.engine import Transaction


@dataclass(frozen=True, slots=True)
class SetAside:
    """A queued job whose references the caller fetches now."""

    id: UUID
    attempt: int
    kind: str
    model: str
    owner: str
    attempts_left: bool  # after a failure of this fetch
    origin: Origin | None


# The jobs were locked in this transaction by `job_selection.select_jobs`.
_SET_ASIDE = text(
    """/* set_aside */
    UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :lease)
    WHERE id = ANY(:ids) AND state = 'queued'
    RETURNING id, attempt, kind, model, owner, attempt + 1 < max_attempts AS attempts_left, origin"""
)
_RENEW = text(
    """UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :lease)
       WHERE id = :id AND state = 'queued' AND attempt = :attempt AND cancel_requested_at IS NULL RETURNING id"""
)
_END = text(
    """UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :delay), nudged_at = NULL
       WHERE id = :id AND state = 'queued' AND attempt = :attempt RETURNING id"""
)
_COUNT_ATTEMPT = text(
    """/* count_fetch */
    WITH upd AS (
        UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :delay), nudged_at = NULL,
            attempt = attempt + 1, event_seq = event_seq + 1
        WHERE id = :id AND state = 'queued' AND attempt = :attempt
        RETURNING id, state, event_seq),
    ev AS (
        INSERT INTO job_events (job_id, seq, from_state, to_state, actor, note)
        SELECT id, event_seq, state, state, 'submit', jsonb_build_object('reason', CAST(:code AS text),
            'code', CAST(:code AS text), 'delay_seconds', CAST(:delay AS float8), 'detail', CAST(:detail AS text))
        FROM upd)
    SELECT * FROM upd"""
)


def set_aside(tx: Transaction, job_ids: Sequence[UUID]) -> list[SetAside]:
    """(queued) Lease these jobs for a fetch of their references."""
    rows = tx.all(_SET_ASIDE, {"ids": list(job_ids), "lease": get_settings().lease_seconds})
    return [SetAside(**row._mapping) for row in rows]  # noqa: SLF001


def renew(tx: Transaction, job: SetAside) -> bool:
    """(queued) Renew the lease; False if the job is not queued any more."""
    values = {"id": job.id, "attempt": job.attempt, "lease": get_settings().lease_seconds}
    return tx.first(_RENEW, values) is not None


def end(tx: Transaction, job: SetAside, *, delay: float = 0.0) -> bool:
    """(queued) The job may be claimed, or set aside again, after `delay` seconds."""
    return tx.first(_END, {"id": job.id, "attempt": job.attempt, "delay": delay}) is not None


def count_attempt(tx: Transaction, job: SetAside, *, delay: float, code: str, detail: str) -> Row[Any] | None:
    """(queued) The fetch failed: that counts as an attempt, and the next one begins after `delay` seconds."""
    values = {"id": job.id, "attempt": job.attempt, "delay": delay, "code": code, "detail": detail}
    return tx.first(_COUNT_ATTEMPT, values)
