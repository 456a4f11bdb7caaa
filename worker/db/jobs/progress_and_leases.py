"""What is noted about an open job without changing its state: leases, progress, absence, a slot that is free again.

Changes of state are in `jobs.py`, and nowhere else.
"""

import json
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.settings import get_settings
from worker.db.accounts import accounts
from worker.db.engine import Transaction

_DEFER_UNCLEAR = text(
    """/* note_unclear */ UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :grace)
       WHERE id = :id AND state = 'submitting' AND attempt = :attempt RETURNING account_id"""
)


def note_unclear(tx: Transaction, *, job_id: UUID, attempt: int) -> bool:
    """(submitting) the call is over and its effect unknown: from now on the poll may ask for its key.

    `due_at` is when an unknown key counts as lost; until then the job keeps its slot.
    """
    row = tx.first(_DEFER_UNCLEAR, {"id": job_id, "attempt": attempt, "grace": get_settings().unclear_grace_seconds})
    if row is not None:
        accounts.poll_soon(tx, row.account_id)
    return row is not None


def renew_submit(tx: Transaction, *, job_id: UUID, attempt: int) -> bool:
    """(submitting) keep the claim for another lease, after each reference; False when it is lost or not wanted."""
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
    """(saving) take the save of this job for one lease; None when it is not due or somebody has it."""
    return tx.first(_CLAIM_SAVE, {"id": job_id, "lease": get_settings().lease_seconds})


def renew_save(tx: Transaction, *, job_id: UUID, save_tries: int) -> bool:
    """(saving) keep the save for another lease, after each file; False when somebody else took it over."""
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
    """(saving) try again after `delay` seconds, with fresh addresses when upstream gave some."""
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
    """(cancelled) upstream has finished what nobody wants any more: the slot is free."""
    row = tx.first(
        text("UPDATE jobs SET holds_slot = false WHERE id = :id AND state = 'cancelled' AND holds_slot RETURNING id"),
        {"id": job_id},
    )
    return row is not None


def note_progress(
    tx: Transaction,
    *,
    job_id: UUID,
    attempt: int,
    queue_position: int | None,
    forecast_seconds: int | None,
    ready_items: int,
    progress: int,
) -> Row[Any] | None:
    """(running) what upstream tells on the way; one event, and only when something a watcher sees has changed."""
    return tx.first(
        _NOTE_PROGRESS,
        {
            "id": job_id,
            "attempt": attempt,
            "position": queue_position,
            "forecast": forecast_seconds,
            "items": ready_items,
            "progress": progress,
        },
    )


_NOTE_PROGRESS = text(
    """/* note_progress */
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


def note_stable(tx: Transaction, *, job_id: UUID, attempt: int) -> Row[Any] | None:
    """(running) some items, unchanged since the last poll: counts towards the stable rule of protocol section 8.3."""
    return tx.first(
        text(
            """UPDATE jobs SET stable_polls = stable_polls + 1
               WHERE id = :id AND state = 'running' AND attempt = :attempt
               RETURNING stable_polls, extract(epoch FROM clock_timestamp() - stable_since) AS stable_seconds"""
        ),
        {"id": job_id, "attempt": attempt},
    )


def note_absent(tx: Transaction, *, job_id: UUID, attempt: int) -> float:
    """(running, or cancelled here) upstream answered without it; the seconds since that began."""
    row = tx.first(
        text(
            """UPDATE jobs SET absent_since = coalesce(absent_since, clock_timestamp())
               WHERE id = :id AND state IN ('running', 'cancelled') AND holds_slot AND attempt = :attempt
               RETURNING extract(epoch FROM clock_timestamp() - absent_since) AS seconds"""
        ),
        {"id": job_id, "attempt": attempt},
    )
    return float(row.seconds) if row is not None else 0.0
