"""Ranks the accounts that could take a job now by score. The highest score gets the job.

SQL gathers the facts, `score` weighs them. Only outcomes that say something about the account count: a refusal of the
content or the parameters does not. Facts decay (`HALF_LIFE_SECONDS`), so an account that failed is tried again.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.errors import ERRORS, Fault
from worker.db.accounts.available_credits import covers, credits_left
from worker.db.accounts.concurrency import free_slots, slot_limits
from worker.db.accounts.eligibility import candidates, may_take, ready
from worker.db.engine import Transaction

# The weight of each part. Every part is between 0 and 1, and so is the score, their weighted mean.
WEIGHTS = {
    "health": 4.0,  # finished jobs against failures caused by the account, all models
    "load": 3.0,  # share of free slots for this kind
    "success": 2.0,  # like health, for this model alone
    "credits": 2.0,  # credits left after the job, in multiples of its price
    "wear": 1.0,  # how little it was used recently
}
# A claim yields to another account only if its score is higher by this much.
MARGIN = 0.02
HALF_LIFE_SECONDS = 3600.0
# With this many recent jobs the wear part is 0.5; with credits for this many more jobs the credits part is 0.5.
_HALF_WEAR_JOBS = 10.0
_HALF_CREDITS_JOBS = 10.0
_UNKNOWN_CREDITS = 0.5
# Of a larger pool only the accounts that were idle longest are compared.
_MAX_CANDIDATES = 100


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about an account that could take a job now. Counts decay with time."""

    slots: int
    free: int
    good: float = 0.0
    bad: float = 0.0
    model_good: float = 0.0
    model_bad: float = 0.0
    credits_left: int | None = None  # None = unknown
    price: int | None = None  # of the job
    used: float = 0.0  # recent jobs, decayed

    @property
    def is_last_resort(self) -> bool:
        """Whether the account certainly has no credits for a job whose price upstream decides, such as a chat's."""
        return self.price is None and self.credits_left is not None and self.credits_left <= 0


@dataclass(frozen=True, slots=True)
class Score:
    """The parts of a score, each between 0 (bad) and 1 (good). Any account comes before a last resort."""

    health: float
    load: float
    success: float
    credits: float
    wear: float
    last_resort: bool = False

    @property
    def total(self) -> float:
        """The weighted mean of the parts."""
        return sum(WEIGHTS[name] * part for name, part in self._parts().items()) / sum(WEIGHTS.values())

    def as_dict(self) -> dict[str, float]:
        """Return the parts and `total`, rounded, for the job's timeline."""
        return {name: round(part, 3) for name, part in {**self._parts(), "total": self.total}.items()}

    def _parts(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in WEIGHTS}


def score(facts: Facts) -> Score:
    """Return the score of an account. An account without history gets full marks for health and success."""
    if facts.credits_left is None or not facts.price:
        credits_part = _UNKNOWN_CREDITS
    else:
        jobs_left = max(facts.credits_left - facts.price, 0) / facts.price
        credits_part = jobs_left / (jobs_left + _HALF_CREDITS_JOBS)
    return Score(
        health=(facts.good + 1) / (facts.good + facts.bad + 1),
        load=facts.free / facts.slots if facts.slots else 0.0,
        success=(facts.model_good + 1) / (facts.model_good + facts.model_bad + 1),
        credits=credits_part,
        wear=_HALF_WEAR_JOBS / (_HALF_WEAR_JOBS + facts.used),
        last_resort=facts.is_last_resort,
    )


_DECAY = f"power(0.5, extract(epoch FROM clock_timestamp() - m.at) / {HALF_LIFE_SECONDS})"
_USED = f"""a.used * power(0.5, coalesce(extract(epoch FROM clock_timestamp() - a.last_submit_at), 0)
    / {HALF_LIFE_SECONDS})"""
_CANDIDATES = text(
    f"""/* candidates */
    SELECT a.id, j.price, room.free, room.credits_left, room.busy, {_USED} AS used,
        coalesce(m.good, 0) AS good, coalesce(m.bad, 0) AS bad,
        coalesce(m.model_good, 0) AS model_good, coalesce(m.model_bad, 0) AS model_bad
    FROM jobs j CROSS JOIN {candidates("j")}
    CROSS JOIN LATERAL (
        SELECT {free_slots("a", "j.kind")} AS free, {credits_left("a")} AS credits_left,
            (SELECT count(*) FROM jobs s WHERE s.account_id = a.id AND s.holds_slot AND s.kind = j.kind) AS busy
        OFFSET 0) room
    LEFT JOIN LATERAL (
        SELECT sum(m.good * {_DECAY}) AS good, sum(m.bad * {_DECAY}) AS bad,
            sum(m.good * {_DECAY}) FILTER (WHERE m.model = j.model) AS model_good,
            sum(m.bad * {_DECAY}) FILTER (WHERE m.model = j.model) AS model_bad
        FROM account_marks m WHERE m.account_id = a.id) m ON true
    WHERE j.id = :job_id AND j.state = 'queued' AND NOT (a.id = ANY(j.avoid_accounts)) AND {may_take("a", "j")}
      AND {ready("a")} AND room.free > 0 AND {covers("room.credits_left", "j.price")}
    ORDER BY a.last_submit_at NULLS FIRST, a.id LIMIT {_MAX_CANDIDATES}"""
)


def find_candidates(tx: Transaction, job_id: UUID) -> dict[UUID, Facts]:
    """Return the facts about the accounts that could take this queued job now, longest idle first. Locks nothing."""
    return {row.id: _facts(row) for row in tx.all(_CANDIDATES, {"job_id": job_id, **slot_limits()})}


def rank(candidates: dict[UUID, Facts]) -> dict[UUID, Score]:
    """Return the scores of the accounts, best first, then in their order."""
    scores = {account_id: score(facts) for account_id, facts in candidates.items()}
    return dict(sorted(scores.items(), key=lambda pair: (pair[1].last_resort, -round(pair[1].total, 3))))


def after_claim(facts: Facts) -> Facts:
    """Return the facts about an account that has just taken this job, for the next job of the same kind and price."""
    left = None if facts.credits_left is None else facts.credits_left - (facts.price or 0)
    return replace(facts, free=facts.free - 1, used=facts.used + 1, credits_left=left)


def rank_accounts(tx: Transaction, job_id: UUID) -> dict[UUID, Score]:
    """Return the accounts that could take this queued job now, best first, then longest idle. Locks nothing."""
    return rank(find_candidates(tx, job_id))


def find_best_account(tx: Transaction, job_id: UUID) -> UUID | None:
    """Return the best account that could take this queued job now; None if there is none."""
    return next(iter(rank_accounts(tx, job_id)), None)


def find_better_account(account_id: UUID, scores: dict[UUID, Score]) -> UUID | None:
    """Return an account with a clearly better score for the job than this one; None if there is none."""
    best = next(iter(scores), account_id)
    if best == account_id:
        return None
    own = scores.get(account_id)
    if own is not None and own.last_resort and not scores[best].last_resort:
        return best
    return best if scores[best].total > (own.total if own is not None else 0.0) + MARGIN else None


def _facts(row: Row[Any]) -> Facts:
    return Facts(
        slots=row.free + row.busy,
        free=row.free,
        good=float(row.good),
        bad=float(row.bad),
        model_good=float(row.model_good),
        model_bad=float(row.model_bad),
        credits_left=row.credits_left,
        price=row.price,
        used=float(row.used),
    )


_RECORD_OUTCOMES = text(
    f"""/* mark_account */
    INSERT INTO account_marks AS m (account_id, model, good, bad)
    SELECT account_id, model, good, bad
    FROM jsonb_to_recordset(CAST(:marks AS jsonb)) AS mark(account_id uuid, model text, good float8, bad float8)
    ORDER BY account_id, model
    ON CONFLICT (account_id, model) DO UPDATE SET
        good = m.good * {_DECAY} + excluded.good, bad = m.bad * {_DECAY} + excluded.bad, at = clock_timestamp()"""
)


def record_outcomes(tx: Transaction, outcomes: Iterable[tuple[UUID | None, str, str | None]]) -> None:
    """Record which jobs accounts finished or failed: (account, model, error code; None = finished).

    Failures that the job itself caused are ignored. Call this last in a transaction: the rows are contended.
    """
    counts = Counter(
        (account_id, model, code is None)
        for account_id, model, code in outcomes
        if account_id is not None and (code is None or counts_against_account(code))
    )
    if counts:
        pairs = {(account_id, model) for account_id, model, _ in counts}
        marks = [
            {"account_id": str(a), "model": model, "good": counts[a, model, True], "bad": counts[a, model, False]}
            for a, model in pairs
        ]
        tx.run(_RECORD_OUTCOMES, {"marks": json.dumps(marks)})


def record_outcome(tx: Transaction, account_id: UUID | None, model: str, *, code: str | None) -> None:
    """Record the outcome of one job; see `record_outcomes`."""
    record_outcomes(tx, [(account_id, model, code)])


def counts_against_account(code: str) -> bool:
    """Whether a failure with this code counts against the account (or its connection upstream), not the job."""
    return code in ERRORS and ERRORS[code].fault in {Fault.ACCOUNT, Fault.UPSTREAM} and code != "concurrency_limit"
