"""Why a job went to this account and not to another: the candidates its claim passed over, on the job's timeline."""

import json
from uuid import UUID

from sqlalchemy import text

from worker.db.accounts.available_credits import affords, credits_left
from worker.db.accounts.concurrency import free_slots, slot_limits
from worker.db.accounts.eligibility import candidates, is_open, under_cap
from worker.db.engine import Transaction
from worker.db.scheduling.account_scoring import Score

_MOST = 8
# A pool may be large: so many of it are looked at.
_LOOKED_AT = 40
# What is avoided without having refused the job has not its model. The first reason that holds is told. Whoever could
# have taken the job has a score, and none that is clearly better, unless the better one was taken by another claim.
_NOTE = text(
    f"""/* passed_over */
    WITH given AS (SELECT CAST(:scores AS jsonb) AS scores),
    looked AS (
        SELECT a.*, (given.scores ->> CAST(a.id AS text))::float8 AS score
        FROM jobs j CROSS JOIN given CROSS JOIN {candidates("j")}
        WHERE j.id = :job_id AND a.id <> :account_id
        ORDER BY score DESC NULLS LAST, a.last_submit_at DESC NULLS LAST LIMIT {_LOOKED_AT}),
    others AS (
        SELECT a.label, a.score, a.last_submit_at,
            to_char(a.rest_until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS until, a.rest_code,
            CASE WHEN a.id = ANY(j.avoid_accounts) AND EXISTS (SELECT 1 FROM job_events e
                    WHERE e.job_id = j.id AND e.to_state = 'queued' AND e.note ->> 'account' = a.label)
                    THEN 'refused this job'
                WHEN a.id = ANY(j.avoid_accounts) THEN 'has not this model'
                WHEN a.state <> 'ok' THEN a.state
                WHEN a.rest_until > clock_timestamp() THEN 'resting'
                WHEN NOT {is_open("a")} THEN 'outside its working hours'
                WHEN NOT {under_cap("a")} THEN 'daily cap reached'
                WHEN a.score <= :mine THEN 'no better score'
                WHEN a.score IS NOT NULL THEN 'just taken'
                WHEN {free_slots("a", "j.kind")} <= 0 THEN 'no free slot'
                WHEN NOT {affords(credits_left("a"), "j.price")} THEN 'too few credits'
                WHEN a.next_submit_at > clock_timestamp() THEN 'pace' END AS why
        FROM looked a JOIN jobs j ON j.id = :job_id),
    told AS (
        SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('account', label, 'why', why, 'score', score,
            'until', CASE WHEN why = 'resting' THEN until END,
            'code', CASE WHEN why = 'resting' THEN rest_code END))) AS list
        FROM (SELECT * FROM others WHERE why IS NOT NULL
              ORDER BY score DESC NULLS LAST, last_submit_at DESC NULLS LAST LIMIT {_MOST}) o)
    UPDATE job_events SET note = note || jsonb_build_object('passed_over', told.list)
    FROM told WHERE job_id = :job_id AND seq = :seq AND told.list IS NOT NULL"""
)


def note(tx: Transaction, job_id: UUID, seq: int, account_id: UUID, found: dict[UUID, Score]) -> None:
    """Add to the event of a claim, in its transaction, which other accounts were passed over and why.

    `found` = the accounts that could have taken the job, with their scores.
    """
    scores = {str(one): round(score.total, 3) for one, score in found.items()}
    values = {"job_id": job_id, "account_id": account_id, "seq": seq, "scores": json.dumps(scores)}
    # Nothing is better than an account whose score is not known: it has room again since it was looked at.
    mine = scores.get(str(account_id), 1.0)
    tx.run(_NOTE, {**values, "mine": mine, **slot_limits()})
