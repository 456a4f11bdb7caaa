"""Which account is the best for a job: of those that could take it this moment, the one with the highest score.

SQL gathers the facts, `score` weighs them. What is told is told of the account only: refusals of content or parameters
leave no mark. Facts fade (`HALF_LIFE_SECONDS`), so an account that failed is tried again.
"""

from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.errors import ERRORS, Fault
from worker.db.accounts.available_credits import affords, credits_left
from worker.db.accounts.concurrency import free_slots, slot_limits
from worker.db.accounts.eligibility import candidates, may_take, ready
from worker.db.engine import Transaction

# What each part counts for; every part is between 0 and 1, and so is their weighted mean, the score.
WEIGHTS = {
    "health": 4.0,  # accepted and finished jobs against failures that are the account's own, of all models
    "load": 3.0,  # share of its slots for this kind that is free
    "success": 2.0,  # like health, of this model alone
    "credits": 2.0,  # what would be left after the job, in prices of such jobs
    "wear": 1.0,  # how little it was used lately
}
# Another account is asked instead only for a difference that means something.
MARGIN = 0.02
HALF_LIFE_SECONDS = 3600.0
# So many jobs within a half-life are half the wear, and so many prices left are half the credits.
_WEARY_JOBS = 10.0
_GOOD_FOR_JOBS = 10.0
_UNKNOWN = 0.5
# A larger pool is compared by those that were idle longest.
_MOST = 100


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an account that could take a job now. Counts fade with time."""

    slots: int
    free: int
    good: float = 0.0
    bad: float = 0.0
    model_good: float = 0.0
    model_bad: float = 0.0
    credits_left: int | None = None  # None = not known
    price: int | None = None  # of the job
    used: float = 0.0  # jobs it took lately


@dataclass(frozen=True, slots=True)
class Score:
    """The parts of a score, each between 0 (bad) and 1."""

    health: float
    load: float
    success: float
    credits: float
    wear: float

    @property
    def total(self) -> float:
        """The weighted mean of the parts."""
        parts: dict[str, float] = asdict(self)
        return sum(WEIGHTS[name] * part for name, part in parts.items()) / sum(WEIGHTS.values())

    def told(self) -> dict[str, float]:
        """For the job's timeline: the parts and `total`, rounded."""
        return {name: round(part, 3) for name, part in {**asdict(self), "total": self.total}.items()}


def score(facts: Facts) -> Score:
    """Weigh what is known; an account of which nothing is known is trusted."""
    if facts.credits_left is None or not facts.price:
        purse = _UNKNOWN
    else:
        jobs_left = max(facts.credits_left - facts.price, 0) / facts.price
        purse = jobs_left / (jobs_left + _GOOD_FOR_JOBS)
    return Score(
        health=(facts.good + 1) / (facts.good + facts.bad + 1),
        load=facts.free / facts.slots if facts.slots else 0.0,
        success=(facts.model_good + 1) / (facts.model_good + facts.model_bad + 1),
        credits=purse,
        wear=_WEARY_JOBS / (_WEARY_JOBS + facts.used),
    )


_FADE = f"power(0.5, extract(epoch FROM clock_timestamp() - m.at) / {HALF_LIFE_SECONDS})"
_USED = f"""a.used * power(0.5, coalesce(extract(epoch FROM clock_timestamp() - a.last_submit_at), 0)
    / {HALF_LIFE_SECONDS})"""
# The accounts that could take this job now.
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
        SELECT sum(m.good * {_FADE}) AS good, sum(m.bad * {_FADE}) AS bad,
            sum(m.good * {_FADE}) FILTER (WHERE m.model = j.model) AS model_good,
            sum(m.bad * {_FADE}) FILTER (WHERE m.model = j.model) AS model_bad
        FROM account_marks m WHERE m.account_id = a.id) m ON true
    WHERE j.id = :job_id AND j.state = 'queued' AND NOT (a.id = ANY(j.avoid_accounts)) AND {may_take("a", "j")}
      AND {ready("a")} AND room.free > 0 AND {affords("room.credits_left", "j.price")}
    ORDER BY a.last_submit_at NULLS FIRST, a.id LIMIT {_MOST}"""
)


def ranked(tx: Transaction, job_id: UUID) -> dict[UUID, Score]:
    """The accounts that could take this queued job now, the best first; of equals, the one idle longest. Locks none."""
    rows = tx.all(_CANDIDATES, {"job_id": job_id, **slot_limits()})
    scores = {row.id: score(_facts(row)) for row in rows}
    return dict(sorted(scores.items(), key=lambda pair: -round(pair[1].total, 3)))


def best_for_job(tx: Transaction, job_id: UUID) -> UUID | None:
    """The account that should take this queued job now; None when none can."""
    return next(iter(ranked(tx, job_id)), None)


def better_than(account_id: UUID, scores: dict[UUID, Score]) -> UUID | None:
    """The account that should take a job instead of this one; None when none is clearly better."""
    best = next(iter(scores), account_id)
    mine = scores[account_id].total if account_id in scores else 0.0
    return best if best != account_id and scores[best].total > mine + MARGIN else None


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


_MARK = text(
    f"""/* mark_account */
    INSERT INTO account_marks AS m (account_id, model, good, bad)
    VALUES (:account_id, :model, :good, :bad)
    ON CONFLICT (account_id, model) DO UPDATE SET
        good = m.good * {_FADE} + excluded.good, bad = m.bad * {_FADE} + excluded.bad, at = clock_timestamp()"""
)


def note_outcome(tx: Transaction, account_id: UUID | None, model: str, *, code: str | None) -> None:
    """Remember that an account finished a job (`code` None) or failed with a code. Last in its transaction: many wait
    for the same row.

    Only what is about the account or its way upstream leaves a mark, never what a job itself is to blame for.
    """
    if account_id is None or (code is not None and not counts_against(code)):
        return
    good = 1.0 if code is None else 0.0
    tx.run(_MARK, {"account_id": account_id, "model": model, "good": good, "bad": 1.0 - good})


def counts_against(code: str) -> bool:
    """Whether an error code says something about the account that it was met on."""
    return code in ERRORS and ERRORS[code].fault in {Fault.ACCOUNT, Fault.UPSTREAM} and code != "concurrency_limit"
