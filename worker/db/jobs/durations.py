"""How long finished jobs took, from submit to stored result: median and 90th percentile per kind, model and size.

Computed from the newest finished jobs of a model, and cached per process for half a minute.
"""

import threading
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from worker.db.engine import Transaction

_CACHE_SECONDS = 30.0
_MAX_JOBS = 400
# With fewer jobs of a size, all sizes of the model are taken together.
_MIN_JOBS = 5


@dataclass(frozen=True, slots=True)
class DurationStats:
    """Durations of similar jobs in seconds, and the number of jobs."""

    p50: float
    p90: float
    count: int


# Grouping sets: one row per size, and one for all of them.
_READ_STATS = text(
    """/* learn_durations */
    WITH newest AS (
        SELECT extract(epoch FROM finished_at - submitted_at) AS seconds,
               concat_ws(' ', params #>> '{order,resolution}', params #>> '{order,seconds}') AS size
        FROM jobs WHERE state = 'succeeded' AND kind = :kind AND model = :model AND submitted_at IS NOT NULL
        ORDER BY finished_at DESC LIMIT :newest)
    SELECT size, count(*) AS n,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS p50,
        percentile_cont(0.9) WITHIN GROUP (ORDER BY seconds) AS p90
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
    by_size = _stats_by_size(tx, kind, model)
    for size in (size_of(params), None):
        found = by_size.get(size)
        if found is not None and found.count >= _MIN_JOBS:
            return found
    return None


def _stats_by_size(tx: Transaction, kind: str, model: str) -> dict[str | None, DurationStats]:
    now = time.monotonic()
    with _lock:
        at, by_size = _cache.get((kind, model), (-_CACHE_SECONDS, {}))
    if now - at < _CACHE_SECONDS:
        return by_size
    rows = tx.all(_READ_STATS, {"kind": kind, "model": model, "newest": _MAX_JOBS})
    by_size = {row.size: DurationStats(p50=row.p50, p90=row.p90, count=row.n) for row in rows if row.n}
    with _lock:
        _cache[kind, model] = (now, by_size)
    return by_size


def clear_cache() -> None:
    """Clear the cache, for example after a change of the database."""
    with _lock:
        _cache.clear()
