"""Which rules fire now, and for what: the conditions that the rows and the last samples show.

A rule that cannot be evaluated, because what it watches is unknown, keeps its alerts as they are.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text

from worker.core.ids import first_id_at
from worker.core.job_state import OPEN, sql_list
from worker.core.observability.alert_rules import LEAST_ENDED, RULES, RuleSettings, fires
from worker.db.accounts.concurrency import SLOT_LIMITS, free_slots, slot_limits
from worker.db.accounts.eligibility import may_use, model_works, works
from worker.db.engine import Transaction
from worker.db.monitoring import samples
from worker.db.platform import state as platform_state

# A rule names at most so many subjects.
MOST_SUBJECTS = 200
# What cannot be known exactly without a storage that tells: the problem itself is shown.
_PROBLEM_VALUE = 0.0
_OLDEST_TRIED = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """A subject for which a rule fires."""

    rule: str
    subject: str
    label: str
    value: float


@dataclass(frozen=True, slots=True)
class Readings:
    """What the disk and the workers show, and no row of the database. None = unknown."""

    free_percent: float | None = None
    # Queue -> seconds since a worker processed it, while none does; all other queues have one.
    queues_without_worker: Mapping[str, float] | None = None
    # Seconds for which no sample was written before this one.
    gap_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The findings, and the rules that could be evaluated."""

    findings: list[Finding] = field(default_factory=list)
    rules: set[str] = field(default_factory=set)


_Values = Iterable[tuple[str, str, float]]


def evaluate(tx: Transaction, rules: Mapping[str, RuleSettings], readings: Readings) -> Evaluation:
    """Return what fires now, of the enabled rules."""
    found = Evaluation()
    for name, read in _READERS.items():
        rule = rules[name]
        values = read(tx, readings, rule.threshold) if rule.enabled else None
        if values is None:
            continue
        found.rules.add(name)
        firing = [value for value in values if fires(name, value[2], rule.threshold)]
        found.findings.extend(Finding(name, *value) for value in firing[:MOST_SUBJECTS])
    return found


_POOL = "pool AND state = 'ok' AND currency IS NULL AND credits IS NOT NULL"


def _account_credits(tx: Transaction, _readings: Readings, threshold: float) -> _Values:
    rows = tx.all(
        text(
            f"""/* alert_account_credits */ SELECT id, label, credits FROM accounts
                WHERE {_POOL} AND credits < :threshold ORDER BY credits, id LIMIT :most"""
        ),
        {"threshold": threshold, "most": MOST_SUBJECTS},
    )
    return [(row.id.hex, row.label, float(row.credits)) for row in rows]


def _pool_credits(tx: Transaction, _readings: Readings, _threshold: float) -> _Values | None:
    row: Any = tx.all(text(f"SELECT count(*) AS n, coalesce(sum(credits), 0) AS left FROM accounts WHERE {_POOL}"))[0]
    return [("", "", float(row.left))] if row.n else []


def _sessions(tx: Transaction, _readings: Readings, _threshold: float) -> _Values:
    rows = tx.all(
        text(
            """/* alert_sessions */ SELECT id, label, extract(epoch FROM clock_timestamp() - state_at) / 60 AS minutes
               FROM accounts WHERE pool AND state IN ('needs_login', 'blocked') ORDER BY state_at NULLS LAST, id
               LIMIT :most"""
        ),
        {"most": MOST_SUBJECTS},
    )
    return [(row.id.hex, row.label, round(max(float(row.minutes or 0), 0.0), 1)) for row in rows]


# The oldest waiting jobs of each kind, and whether an account could have taken one a minute ago and can now.
_STUCK = text(
    f"""/* alert_queue_stuck */
    SELECT w.kind, max(extract(epoch FROM clock_timestamp() - w.created_at)) / 60 AS minutes
    FROM (VALUES {", ".join(f"('{kind}')" for kind in SLOT_LIMITS)}) k (kind)
    CROSS JOIN LATERAL (
        SELECT j.* FROM jobs j WHERE j.kind = k.kind AND j.state = 'queued' AND j.due_at <= now()
          AND j.created_at < now() - make_interval(mins => CAST(:minutes AS integer))
        ORDER BY j.place, j.id LIMIT {_OLDEST_TRIED}) w
    WHERE EXISTS (
        SELECT 1 FROM accounts a WHERE {works("a")} AND a.next_submit_at < now() - interval '1 min'
          AND coalesce(a.last_submit_at < now() - interval '1 min', true)
          AND NOT (a.id = ANY(w.avoid_accounts)) AND {may_use("a", "w")} AND {model_works("a", "w")}
          AND (w.currency IS NOT NULL OR coalesce(a.credits >= w.price, true))
          AND {free_slots("a", "w.kind")} > 0)
    GROUP BY w.kind"""
)


def _queues(tx: Transaction, _readings: Readings, threshold: float) -> _Values:
    rows = tx.all(_STUCK, {"minutes": int(threshold), **slot_limits()})
    return [(row.kind, row.kind, round(float(row.minutes), 1)) for row in rows]


def _overdue(tx: Transaction, _readings: Readings, _threshold: float) -> _Values:
    row: Any = tx.all(
        text(
            f"""/* alert_overdue */ SELECT extract(epoch FROM clock_timestamp() - min(deadline_at)) / 60 AS minutes
                FROM jobs WHERE state IN {sql_list(OPEN)} AND deadline_at < now()"""
        )
    )[0]
    return [] if row.minutes is None else [("", "", round(float(row.minutes), 1))]


def _storage(tx: Transaction, readings: Readings, _threshold: float) -> _Values | None:
    problem = platform_state.get_storage_problem(tx)
    if problem is not None:
        return [("", f"{problem.place}: {problem.reason}", _PROBLEM_VALUE)]
    return None if readings.free_percent is None else [("", "", round(readings.free_percent, 1))]


def _workers(_tx: Transaction, readings: Readings, _threshold: float) -> _Values | None:
    if readings.queues_without_worker is None:
        return None
    queues = [(name, name, round(seconds / 60, 1)) for name, seconds in readings.queues_without_worker.items()]
    # While no worker ran, nobody could notice: the first sample afterwards tells.
    return [*queues, ("", "", round(readings.gap_seconds / 60, 1))]


def _failures(tx: Transaction, _readings: Readings, _threshold: float) -> _Values:
    sums = samples.recent(tx, minutes=10)
    failed, good = sums.get("jobs_failed_by_us", 0), sums.get("jobs_succeeded", 0)
    return [("", "", round(100 * failed / (failed + good), 1))] if failed + good >= LEAST_ENDED else []


def _doubts(tx: Transaction, _readings: Readings, _threshold: float) -> _Values:
    now: Any = tx.all(text("SELECT clock_timestamp() - interval '24 h' AS day_ago"))[0]
    row: Any = tx.all(
        text("SELECT count(*) AS n FROM jobs WHERE charge_doubt IS NOT NULL AND id >= :floor"),
        {"floor": first_id_at(now.day_ago)},
    )[0]
    return [("", "", float(row.n))]


def _backups(tx: Transaction, _readings: Readings, _threshold: float) -> _Values | None:
    last = platform_state.read(tx, "last_backup")
    # Without any backup it counts from the first start of this platform.
    last = last or platform_state.read(tx, "installation")
    return None if last is None else [("", "", round(float(last["age_hours"]), 1))]


_READERS: dict[str, Callable[[Transaction, Readings, float], _Values | None]] = {
    "account_credits_low": _account_credits,
    "pool_credits_low": _pool_credits,
    "session_expired": _sessions,
    "queue_stuck": _queues,
    "jobs_overdue": _overdue,
    "storage_low": _storage,
    "workers_away": _workers,
    "failure_rate_high": _failures,
    "charges_in_doubt": _doubts,
    "backup_old": _backups,
}
if set(_READERS) != set(RULES):
    raise RuntimeError("each rule needs a condition")
