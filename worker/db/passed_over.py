"""Why a job went to this account and not to another: the candidates its claim passed over, on the job's timeline."""

from uuid import UUID

from sqlalchemy import text

from worker.db.eligibility import candidates, is_open, under_cap
from worker.db.engine import Transaction
from worker.db.slots import free_slots, slot_limits

_MOST = 8
# What is avoided without having refused the job has not its model. The first that holds is told:
# refused, switched off, resting, closed, at its cap, full, paced. A pool may be large, so its slots are not counted.
_NOTE = text(
    f"""/* passed_over */
    WITH others AS (
        SELECT a.label, to_char(a.rest_until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS until,
            CASE WHEN a.id = ANY(j.avoid_accounts) AND EXISTS (SELECT 1 FROM job_events e
                    WHERE e.job_id = j.id AND e.to_state = 'queued' AND e.note ->> 'account' = a.label)
                    THEN 'refused this job'
                WHEN a.id = ANY(j.avoid_accounts) THEN 'has not this model'
                WHEN a.state <> 'ok' THEN a.state
                WHEN a.rest_until > clock_timestamp() THEN 'resting'
                WHEN NOT {is_open("a")} THEN 'outside its working hours'
                WHEN NOT {under_cap("a")} THEN 'daily cap reached'
                WHEN j.account_ids <> '{{}}' AND {free_slots("a", "j.kind")} <= 0 THEN 'no free slot'
                WHEN j.account_ids <> '{{}}' AND a.next_submit_at > clock_timestamp() THEN 'pace' END AS why,
            a.rest_code
        FROM jobs j CROSS JOIN {candidates("j")}
        WHERE j.id = :job_id AND a.id <> :account_id),
    told AS (
        SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('account', label, 'why', why,
            'until', CASE WHEN why = 'resting' THEN until END,
            'code', CASE WHEN why = 'resting' THEN rest_code END))) AS list
        FROM (SELECT * FROM others WHERE why IS NOT NULL LIMIT :most) o)
    UPDATE job_events SET note = note || jsonb_build_object('passed_over', told.list)
    FROM told WHERE job_id = :job_id AND seq = :seq AND told.list IS NOT NULL"""
)


def note(tx: Transaction, job_id: UUID, seq: int, account_id: UUID) -> None:
    """Add to the event of a claim, in its transaction, which other accounts were passed over and why."""
    tx.run(_NOTE, {"job_id": job_id, "account_id": account_id, "seq": seq, "most": _MOST, **slot_limits()})
