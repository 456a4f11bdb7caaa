"""How long finished jobs took, per kind, model and size: to the stored result, and to upstream's end.

Learned from the newest finished jobs of a model, and cached per process for half a minute.
"""

import threading
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from worker.db.engine import Transaction

_CACHE_SECONDS = 30.0
_MAX_JOBS = 400
# The newest jobs of a size. More would be more exact, but would notice a change of upstream's speed later.
_MAX_JOBS_PER_SIZE = 150
# With fewer jobs of a size, all sizes of the model are taken together.
_MIN_JOBS = 5


@dataclass(frozen=True, slots=True)
class DurationStats:
    """Durations of similar jobs in seconds, from the submit to the stored result.

    Median, 90th percentile, number of jobs, and each one, shortest first. `generation` = each duration to upstream's
    end, shortest first: the other ones include the wait for the poll, so a polling rule that learned from them would
    poll later and later.
    """

    p50: float
    p90: float
    count: int
    seconds: tuple[float, ...] = ()
    generation: tuple[float, ...] = ()

    @classmethod
    def of(cls, durations: Sequence[float], generation: Sequence[float] = ()) -> "DurationStats":
        """Summarize durations. Raises ValueError if there are none."""
        seconds = tuple(sorted(durations))
        if not seconds:
            raise ValueError("no durations")
        return cls(_quantile(seconds, 0.5), _quantile(seconds, 0.9), len(seconds), seconds, tuple(sorted(generation)))

    def remaining(self, share: float, *, ran: float) -> float | None:
        """Return the seconds within which this share of the jobs that ran at least `ran` seconds ended.

        None if every known job ended earlier.
        """
        longer = self.seconds[bisect_right(self.seconds, ran) :]
        return _quantile(longer, share, after=ran) - ran if longer else None


def _quantile(seconds: Sequence[float], share: float, *, after: float = 0.0) -> float:
    """Return the duration within which the next job ends with probability `share`.

    The n known durations, all above `after`, divide the possible ones into n + 1 equally likely ranges (Weibull's
    plotting positions). Other definitions, such as `percentile_cont`, are too low for few jobs: with 5 of them it
    returns for 0.9 a value that only 77 % of the next jobs keep. The last range is taken to be as wide as the others.
    """
    count = len(seconds)
    place = share * (count + 1)
    below = min(int(place), count)
    if below == count:
        width = (seconds[-1] - seconds[0]) / (count - 1) if count > 1 else seconds[-1] - after
        return seconds[-1] + (place - count) * width
    low = seconds[below - 1] if below else after
    return low + (place - below) * (seconds[below] - low)


# Grouping sets: one row per size, and one for all of them.
_READ_STATS = text(
    """/* learn_durations */
    WITH newest AS (
        SELECT extract(epoch FROM finished_at - submitted_at)::float8 AS seconds, finished_at, generation_seconds,
               concat_ws(' ', params #>> '{order,resolution}', params #>> '{order,seconds}') AS size
        FROM jobs WHERE state = 'succeeded' AND kind = :kind AND model = :model AND submitted_at IS NOT NULL
        ORDER BY finished_at DESC LIMIT :newest)
    SELECT size, array_agg(seconds ORDER BY finished_at DESC) AS newest_first,
        array_agg(coalesce(generation_seconds, seconds) ORDER BY finished_at DESC) AS generation
    FROM newest GROUP BY GROUPING SETS ((size), ())"""
)

_lock = threading.Lock()
_cache: dict[tuple[str, str], tuple[float, dict[str | None, DurationStats]]] = {}


def size_of(params: dict[str, Any]) -> str:
    """Return the part of an order that decides its duration: the resolution, and the length of a video."""
    order = params.get("order", {})
    return " ".join(str(order[name]) for name in ("resolution", "seconds") if order.get(name) is not None)


def find_duration_stats(tx: Transaction, kind: str, model: str, params: dict[str, Any]) -> DurationStats | None:
    """Return the durations of recent similar jobs; None if too few have finished."""
    return find_by_size(tx, kind, model, size_of(params))


def find_by_size(tx: Transaction, kind: str, model: str, size: str) -> DurationStats | None:
    """Like `find_duration_stats`, for jobs of a size (`size_of`)."""
    by_size = _stats_by_size(tx, kind, model)
    for size_or_all in (size, None):
        found = by_size.get(size_or_all)
        if found is not None and found.count >= _MIN_JOBS:
            return found
    return None


def _stats_by_size(tx: Transaction, kind: str, model: str) -> dict[str | None, DurationStats]:
    now = time.monotonic()
    with _lock:
        known = _cache.get((kind, model))
        if known is not None:
            at, by_size = known
            if now - at < _CACHE_SECONDS:
                return by_size
            # One thread reads the new values; the others use the old ones meanwhile.
            _cache[kind, model] = (now, by_size)
    rows = tx.all(_READ_STATS, {"kind": kind, "model": model, "newest": _MAX_JOBS})
    most = _MAX_JOBS_PER_SIZE
    by_size = {
        row.size: DurationStats.of(row.newest_first[:most], row.generation[:most]) for row in rows if row.newest_first
    }
    with _lock:
        _cache[kind, model] = (now, by_size)
    return by_size


def clear_cache() -> None:
    """Clear the cache, for example after a change of the database."""
    with _lock:
        _cache.clear()
