"""Samples of the platform: one row per minute, rolled up to ten minutes and hours, and deleted when they are old.

One process writes each minute: the row of the minute and the totals that it was computed from are one transaction.
"""

import itertools
import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, text

from worker.core.observability.samples import KEPT, STEPS, Measures, fold, window_of
from worker.db.engine import Transaction
from worker.db.platform import state as platform_state

# Totals of counters at the last sample, and until when ended jobs are counted.
_TOTALS = "monitoring_totals"
# A longer gap, for example of a platform that was stopped, is not searched for ended jobs.
MOST_SECONDS = 900.0
# Jobs that ended in the last seconds may not be committed yet: they belong to the next sample.
LAG_SECONDS = 10.0
# A sample of the future was written before the clock was set back.
_FUTURE_SECONDS = 3600
_MOST_WINDOWS = 6

_ADD = text(
    """/* add_sample */ INSERT INTO metric_samples (step, at, measures)
       VALUES (:step, to_timestamp(:at), CAST(:measures AS jsonb)) ON CONFLICT DO NOTHING RETURNING at"""
)


def begin(tx: Transaction) -> tuple[float, int] | None:
    """Return the time of the database and the minute to sample, in unix seconds; None = that minute has its sample.

    Other processes wait for the end of this transaction.
    """
    tx.run(text("SELECT pg_advisory_xact_lock(hashtextextended('monitoring', 0))"))
    moment = now(tx)
    minute = window_of(int(moment), STEPS[0])
    tx.run(
        text("DELETE FROM metric_samples WHERE at > to_timestamp(:limit)"),
        {"limit": moment + _FUTURE_SECONDS},
    )
    found = tx.first(
        text("SELECT 1 FROM metric_samples WHERE step = :step AND at >= to_timestamp(:at)"),
        {"step": STEPS[0], "at": minute},
    )
    return None if found is not None else (moment, minute)


def now(tx: Transaction) -> float:
    """Return the time of the database, in unix seconds."""
    return float(tx.all(text("SELECT extract(epoch FROM clock_timestamp()) AS now"))[0].now)


def read_totals(tx: Transaction) -> dict[str, Any]:
    """Return the totals of the last sample; empty = there is none."""
    return platform_state.read_value(tx, _TOTALS)


def write_totals(tx: Transaction, totals: dict[str, Any]) -> None:
    """Keep the totals for the next sample."""
    platform_state.write(tx, _TOTALS, totals)


def add(tx: Transaction, at: int, measures: Measures, step: int = STEPS[0]) -> bool:
    """Insert a sample; False = the window has one already."""
    return tx.first(_ADD, {"step": step, "at": at, "measures": json.dumps(measures)}) is not None


def roll_up(tx: Transaction) -> int:
    """Write the ten minutes and hours that are over, and delete what is old. Return how many were written."""
    written = 0
    for finer, step in itertools.pairwise(STEPS):
        windows = _open_windows(tx, finer, step)
        for window in windows:
            rows = _rows(tx, finer, window, window + step)
            written += add(tx, window, fold([row.measures for row in rows]), step)
        if len(windows) == _MOST_WINDOWS:  # the longer windows need all of these
            break
    for step, seconds in KEPT.items():
        tx.run(
            text("DELETE FROM metric_samples WHERE step = :step AND at < now() - make_interval(secs => :seconds)"),
            {"step": step, "seconds": seconds},
        )
    return written


_OPEN_WINDOWS = text(
    """/* open_windows */
    SELECT DISTINCT CAST(floor(extract(epoch FROM at) / :step) * :step AS bigint) AS at FROM metric_samples
    WHERE step = :finer
      AND at >= coalesce((SELECT max(at) + make_interval(secs => :step) FROM metric_samples WHERE step = :step),
                         '-infinity')
      AND at < to_timestamp(floor(extract(epoch FROM clock_timestamp()) / :step) * :step)
    ORDER BY 1 LIMIT :most"""
)


def _open_windows(tx: Transaction, finer: int, step: int) -> list[int]:
    values = {"finer": finer, "step": step, "most": _MOST_WINDOWS}
    return [int(row.at) for row in tx.all(_OPEN_WINDOWS, values)]


def _rows(tx: Transaction, step: int, first: float, end: float) -> list[Row[Any]]:
    return tx.all(
        text(
            """/* read_samples */ SELECT CAST(extract(epoch FROM at) AS bigint) AS at, measures FROM metric_samples
               WHERE step = :step AND at >= to_timestamp(:first) AND at < to_timestamp(:end) ORDER BY at"""
        ),
        {"step": step, "first": first, "end": end},
    )


def history(tx: Transaction, first: int, end: int, step: int) -> list[tuple[int, Measures]]:
    """Return the samples from `first` (inclusive) to `end`, oldest first: the start of each window and its measures.

    The newest windows, which are not over, are made of what there is of them.
    """
    found = {int(row.at): row.measures for row in _rows(tx, step, window_of(first, step), end)}
    newest = max(found, default=window_of(first, step) - step)
    finer = STEPS[: STEPS.index(step)]
    parts: dict[int, list[Measures]] = {}
    covered = newest + step
    for smaller in reversed(finer):
        rows = _rows(tx, smaller, covered, end)
        for row in rows:
            parts.setdefault(window_of(int(row.at), step), []).append(row.measures)
        covered = max([covered, *(int(row.at) + smaller for row in rows)])
    return sorted({**found, **{at: fold(samples) for at, samples in parts.items()}}.items())


def last_at(tx: Transaction) -> datetime | None:
    """Return the start of the last minute that was sampled; None = none was."""
    row = tx.first(text("SELECT max(at) AS at FROM metric_samples WHERE step = :step"), {"step": STEPS[0]})
    return row.at.astimezone(UTC) if row is not None and row.at is not None else None


def recent(tx: Transaction, *, minutes: int) -> Measures:
    """Return the sum of the last minutes."""
    moment = now(tx)
    return fold([row.measures for row in _rows(tx, STEPS[0], moment - 60 * minutes, moment)])
