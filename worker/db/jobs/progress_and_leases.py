"""Updates of open jobs that do not change the state: leases, progress, absence upstream, released slots.

Changes of state are in `state_machine.py`. The states in parentheses are the states that a function expects.
"""

import json
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.settings import get_settings
from worker.db.accounts import accounts
from worker.db.engine import Transaction

_DEFER_UNCLEAR = text(
    """/* mark_submit_unclear */ UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :grace)
       WHERE id = :id AND state = 'submitting' AND attempt = :attempt RETURNING account_id"""
)


def mark_submit_unclear(tx: Transaction, *, job_id: UUID, attempt: int) -> bool:
    """(submitting) The call ended without a clear result: from now on the poll may look up its submit key.

    `due_at` = when an unknown key counts as lost; until then the job keeps its slot.
    """
    row = tx.first(_DEFER_UNCLEAR, {"id": job_id, "attempt": attempt, "grace": get_settings().unclear_grace_seconds})
    if row is not None:
        accounts.schedule_poll(tx, row.account_id)
    return row is not None


def renew_submit_lease(tx: Transaction, *, job_id: UUID, attempt: int) -> bool:
    """(submitting) Renew the lease of the claim; False if it is lost or a cancel was requested."""
    settings = get_settings()
    row = tx.first(
        text(
            """UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :lost_after)
               WHERE id = :id AND state = 'submitting' AND attempt = :attempt AND cancel_requested_at IS NULL
               RETURNING id"""
        ),
        {"id": job_id, "attempt": attempt, "lost_after": settings.lease_seconds + settings.unclear_grace_seconds},
    )
    return row is not None


_CLAIM_SAVE = text(
    """/* claim_save */ UPDATE jobs
       SET due_at = clock_timestamp() + make_interval(secs => :lease), save_tries = save_tries + 1
       WHERE id = :id AND state = 'saving' AND kind <> 'chat' AND due_at <= clock_timestamp()
       RETURNING id, attempt, kind, params, result_refs, save_tries, submit_key, account_id, group_id,
                 origin, extract(epoch FROM deadline_at - clock_timestamp()) AS seconds_left"""
)


def claim_save(tx: Transaction, job_id: UUID) -> Row[Any] | None:
    """(saving) Claim the save of this job for one lease; None if it is not due or another worker has it."""
    return tx.first(_CLAIM_SAVE, {"id": job_id, "lease": get_settings().lease_seconds})


def renew_save_lease(tx: Transaction, *, job_id: UUID, save_tries: int) -> bool:
    """(saving) Renew the lease of the save; False if another worker took it over."""
    row = tx.first(
        text(
            """UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :lease)
               WHERE id = :id AND state = 'saving' AND save_tries = :tries RETURNING id"""
        ),
        {"id": job_id, "tries": save_tries, "lease": get_settings().lease_seconds},
    )
    return row is not None


def defer_save(
    tx: Transaction, *, job_id: UUID, save_tries: int, delay: float, refs: list[dict[str, Any]] | None
) -> bool:
    """(saving) Try again after `delay` seconds, with new result links (`refs`) if upstream returned some."""
    row = tx.first(
        text(
            """UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :delay), nudged_at = NULL,
                   result_refs = coalesce(CAST(:refs AS jsonb), result_refs)
               WHERE id = :id AND state = 'saving' AND save_tries = :tries RETURNING id"""
        ),
        {"id": job_id, "tries": save_tries, "delay": delay, "refs": json.dumps(refs) if refs else None},
    )
    return row is not None


def release_slot(tx: Transaction, job_id: UUID) -> bool:
    """(cancelled) Release the slot: upstream has finished the job."""
    row = tx.first(
        text("UPDATE jobs SET holds_slot = false WHERE id = :id AND state = 'cancelled' AND holds_slot RETURNING id"),
        {"id": job_id},
    )
    return row is not None


def record_progress(
    tx: Transaction,
    *,
    job_id: UUID,
    attempt: int,
    queue_position: int | None,
    forecast_seconds: int | None,
    ready_items: int,
    progress: int,
) -> Row[Any] | None:
    """(running) Record the progress that upstream reports. Writes an event only if something visible has changed."""
    return tx.first(
        _RECORD_PROGRESS,
        {
            "id": job_id,
            "attempt": attempt,
            "position": queue_position,
            "forecast": forecast_seconds,
            "items": ready_items,
            "progress": progress,
        },
    )


_RECORD_PROGRESS = text(
    """/* record_progress */
    WITH upd AS (
        UPDATE jobs SET progress = greatest(progress, :progress), queue_position = :position, ready_items = :items,
            forecast_seconds = coalesce(:forecast, forecast_seconds), absent_since = NULL, event_seq = event_seq + 1,
            stable_polls = 0, stable_since = clock_timestamp()
        WHERE id = :id AND state = 'running' AND attempt = :attempt
          AND (queue_position IS DISTINCT FROM :position OR ready_items <> :items OR progress < :progress
               OR absent_since IS NOT NULL)
        RETURNING id, event_seq, state, progress, group_id),
    ev AS (
        INSERT INTO job_events (job_id, seq, from_state, to_state, actor, note)
        SELECT id, event_seq, state, state, 'poll',
               jsonb_build_object('progress', progress, 'upstream_position', CAST(:position AS integer),
                                  'items', CAST(:items AS integer))
        FROM upd)
    SELECT * FROM upd"""
)


def count_stable_poll(tx: Transaction, *, job_id: UUID, attempt: int) -> Row[Any] | None:
    """(running) Count a poll without new items, for the rule that decides when a partial result is final."""
    return tx.first(
        text(
            """UPDATE jobs SET stable_polls = stable_polls + 1
               WHERE id = :id AND state = 'running' AND attempt = :attempt
               RETURNING stable_polls, extract(epoch FROM clock_timestamp() - stable_since) AS stable_seconds"""
        ),
        {"id": job_id, "attempt": attempt},
    )


def mark_absent(tx: Transaction, *, job_id: UUID, attempt: int) -> float:
    """(running, cancelled) Record that upstream does not know the job; return the seconds since the first time."""
    row = tx.first(
        text(
            """UPDATE jobs SET absent_since = coalesce(absent_since, clock_timestamp())
               WHERE id = :id AND state IN ('running', 'cancelled') AND holds_slot AND attempt = :attempt
               RETURNING extract(epoch FROM clock_timestamp() - absent_since) AS seconds"""
        ),
        {"id": job_id, "attempt": attempt},
    )
    return float(row.seconds) if row is not None else 0.0
