"""Records on the job's timeline which other accounts a claim passed over, and why."""

import json
from uuid import UUID

from sqlalchemy import text

from worker.db.accounts.available_credits import covers, credits_left
from worker.db.accounts.concurrency import free_slots, slot_limits
from worker.db.accounts.eligibility import candidates, is_open, under_cap
from worker.db.engine import Transaction
from worker.db.scheduling.account_scoring import Score

_MAX_LISTED = 8
# A pool may be large: only this many of its accounts are examined.
_MAX_EXAMINED = 40
# The first reason that applies is recorded. An account in `avoid_accounts` that did not refuse the job does not offer
# its model. An account that could have taken the job has a score; if it is better, another claim has just taken it.
_RECORD = text(
    f"""/* passed_over */
    WITH scored AS (SELECT CAST(:scores AS jsonb) AS scores),
    examined AS (
        SELECT a.*, (scored.scores ->> CAST(a.id AS text))::float8 AS score
        FROM jobs j CROSS JOIN scored CROSS JOIN {candidates("j")}
        WHERE j.id = :job_id AND a.id <> :account_id
        ORDER BY score DESC NULLS LAST, a.last_submit_at DESC NULLS LAST LIMIT {_MAX_EXAMINED}),
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
                WHEN a.score <= :own THEN 'no better score'
                WHEN a.score IS NOT NULL THEN 'just taken'
                WHEN {free_slots("a", "j.kind")} <= 0 THEN 'no free slot'
                WHEN NOT {covers(credits_left("a"), "j.price")} THEN 'too few credits'
                WHEN a.next_submit_at > clock_timestamp() THEN 'pace' END AS why
        FROM examined a JOIN jobs j ON j.id = :job_id),
    reasons AS (
        SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('account', label, 'why', why, 'score', score,
            'until', CASE WHEN why = 'resting' THEN until END,
            'code', CASE WHEN why = 'resting' THEN rest_code END))) AS list
        FROM (SELECT * FROM others WHERE why IS NOT NULL
              ORDER BY score DESC NULLS LAST, last_submit_at DESC NULLS LAST LIMIT {_MAX_LISTED}) o)
    UPDATE job_events SET note = note || jsonb_build_object('passed_over', reasons.list)
    FROM reasons, jsonb_to_recordset(CAST(:events AS jsonb)) AS event(job_id uuid, seq integer)
    WHERE job_events.job_id = event.job_id AND job_events.seq = event.seq AND reasons.list IS NOT NULL"""
)


def record_passed_over(
    tx: Transaction, events: dict[UUID, int], account_id: UUID, candidates_by_score: dict[UUID, Score]
) -> None:
    """Add the passed-over accounts and the reasons to the events of claims, in their transaction.

    `events` = the jobs and the numbers of the events. The jobs may run on the same accounts. `candidates_by_score` =
    the accounts that could have taken the first of them, with their scores.
    """
    scores = {str(candidate): round(score.total, 3) for candidate, score in candidates_by_score.items()}
    listed = json.dumps([{"job_id": str(job_id), "seq": seq} for job_id, seq in events.items()])
    values = {"job_id": next(iter(events)), "account_id": account_id, "events": listed, "scores": json.dumps(scores)}
    # The account has no score if it was full when the candidates were ranked. Then no other one counts as better.
    own = scores.get(str(account_id), 1.0)
    tx.run(_RECORD, {**values, "own": own, **slot_limits()})
