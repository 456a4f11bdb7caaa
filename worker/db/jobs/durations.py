"""How long finished jobs took, from submit to stored result: median and ninth decile per kind, model and size.

Read from the jobs themselves, at most every half minute per model and process, and at most the newest few hundred.
"""

import threading
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from worker.db.engine import Transaction

_FRESH_SECONDS = 30.0
_NEWEST = 400
# Fewer say little; then all sizes of the model are taken together.
_FEWEST = 5


@dataclass(frozen=True, slots=True)
class Usual:
    """Seconds that such jobs took, and how many of them there were."""

    p50: float
    p90: float
    count: int


# Grouping sets: one row per size, and one for all of them.
_LEARN = text(
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
_known: dict[tuple[str, str], tuple[float, dict[str | None, Usual]]] = {}


def size_of(params: dict[str, Any]) -> str:
    """What of an order decides how long it takes: the resolution, and the length of a video."""
    order = params.get("order", {})
    return " ".join(str(order[name]) for name in ("resolution", "seconds") if order.get(name) is not None)


def usual(tx: Transaction, kind: str, model: str, params: dict[str, Any]) -> Usual | None:
    """What jobs like this one took lately; None when hardly any have finished."""
    by_size = _learned(tx, kind, model)
    for size in (size_of(params), None):
        found = by_size.get(size)
        if found is not None and found.count >= _FEWEST:
            return found
    return None


def _learned(tx: Transaction, kind: str, model: str) -> dict[str | None, Usual]:
    now = time.monotonic()
    with _lock:
        at, by_size = _known.get((kind, model), (-_FRESH_SECONDS, {}))
    if now - at < _FRESH_SECONDS:
        return by_size
    rows = tx.all(_LEARN, {"kind": kind, "model": model, "newest": _NEWEST})
    by_size = {row.size: Usual(p50=row.p50, p90=row.p90, count=row.n) for row in rows if row.n}
    with _lock:
        _known[kind, model] = (now, by_size)
    return by_size


def forget() -> None:
    """Read everything anew at the next question (another database)."""
    with _lock:
        _known.clear()
