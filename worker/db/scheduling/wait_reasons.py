"""Why a queued job still waits: the accounts that it may use, by the first reason why each does not take it now."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from worker.db.accounts.available_credits import covers, credits_left
from worker.db.accounts.concurrency import free_slots, slot_limits
from worker.db.accounts.eligibility import candidates, day_began, is_open, model_works, opens_at, under_cap
from worker.db.engine import Transaction

# More names would not help.
_MAX_LABELS = 8
# The order is that of the checks of a claim. `until` is the earliest end, where the reason has one.
_REASONS = text(
    f"""/* wait_reasons */
    WITH examined AS (
        SELECT a.label, a.rest_code, a.state_code, CASE
            WHEN a.id = ANY(j.avoid_accounts) THEN 'refused'
            WHEN a.state <> 'ok' THEN a.state
            WHEN a.rest_until > clock_timestamp() THEN 'resting'
            WHEN NOT {is_open("a")} THEN 'off_hours'
            WHEN NOT {under_cap("a")} THEN 'daily_cap'
            WHEN NOT {model_works("a", "j")} THEN 'model_resting'
            WHEN {free_slots("a", "j.kind")} <= 0 THEN 'busy'
            WHEN NOT {covers(credits_left("a"), "j.price")} THEN 'credits'
            WHEN a.next_submit_at > clock_timestamp() THEN 'pace'
            ELSE 'ready' END AS reason,
            a.rest_until, {opens_at("a")} AS opens_at, {day_began("a")} + interval '1 day' AS day_ends,
            a.next_submit_at,
            to_timestamp(CAST(a.model_rests #>> ARRAY[j.model, 'until'] AS float8)) AS model_rests_until
        FROM jobs j CROSS JOIN {candidates("j")}
        WHERE j.id = :job_id AND j.state = 'queued' AND a.state <> 'retired')
    SELECT reason, count(*) AS accounts,
        min(CASE reason WHEN 'resting' THEN rest_until WHEN 'off_hours' THEN opens_at WHEN 'daily_cap' THEN day_ends
            WHEN 'model_resting' THEN model_rests_until WHEN 'pace' THEN next_submit_at END) AS until,
        (array_agg(CASE WHEN reason = 'resting' THEN rest_code ELSE state_code END ORDER BY rest_until)
            FILTER (WHERE reason IN ('resting', 'needs_login', 'blocked')))[1] AS code,
        (array_agg(label ORDER BY label))[1:{_MAX_LABELS}] AS labels
    FROM examined GROUP BY reason ORDER BY accounts DESC, reason"""
)
_DELAY = text("SELECT due_at FROM jobs WHERE id = :job_id AND state = 'queued' AND due_at > clock_timestamp()")


@dataclass(frozen=True, slots=True)
class WaitReason:
    """The accounts that do not take the job for the same reason, and when the first of them may."""

    reason: str  # `ready` = nothing but the queue; `delay` = the job itself waits before its next attempt
    accounts: int
    until: datetime | None
    code: str | None
    labels: list[str]  # of the first few


def find_wait_reasons(tx: Transaction, job_id: UUID) -> list[WaitReason]:
    """Return why the job waits, the reason of most accounts first; empty if it is not queued or has no account."""
    rows = tx.all(_REASONS, {"job_id": job_id, **slot_limits()})
    found = [
        WaitReason(reason=row.reason, accounts=row.accounts, until=row.until, code=row.code, labels=list(row.labels))
        for row in rows
    ]
    delay = tx.first(_DELAY, {"job_id": job_id})
    if delay is None:
        return found
    return [WaitReason(reason="delay", accounts=0, until=delay.due_at, code=None, labels=[]), *found]
