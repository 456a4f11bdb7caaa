"""Samples of the platform over time: what one measures, and how several become one.

A sample is a plain dict of names and numbers. Counts and histograms of several samples are added, levels are averaged;
a name that is missing was not known. Durations are counted in buckets, because percentiles cannot be added.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from worker.core.observability.metrics import METRICS

Measures = dict[str, Any]

# Seconds that a sample stands for -> how long it is kept, in seconds: minutes for a day, ten minutes for a week, and
# hours for three months. About 5,000 rows in total.
KEPT = {60: 26 * 3600, 600: 8 * 86_400, 3600: 92 * 86_400}
STEPS = tuple(KEPT)

# Upper bounds of durations, in seconds; the last bucket has no bound.
BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14_400.0)

# What happened within the time of a sample.
COUNTS = (
    "jobs_succeeded",
    "jobs_failed",
    "jobs_failed_by_us",  # for a reason that is neither the content nor the request
    "jobs_cancelled",
    "credits_spent",
    "upstream_calls",
    "upstream_errors",
    "requests",
    "request_errors",
)
# How much there was.
LEVELS = (
    "jobs_waiting",
    "jobs_running",
    "oldest_waiting_seconds",
    "credits_left",
    "accounts_usable",
    "workers",
    "worker_threads",
    "worker_threads_busy",
    "messages_waiting",
    "storage_used_bytes",
    "storage_free_bytes",
    "database_bytes",
    "redis_bytes",
)
# Histograms: numbers per bucket. Shown as `..._p50` and `..._p95`.
DURATIONS = ("queue_wait", "generation", "save", "upstream_call")
_CALL_BOUNDS = METRICS["dreamery_upstream_seconds"].buckets


def fold(samples: Sequence[Mapping[str, Any]]) -> Measures:
    """Return one sample for the time of several."""
    found: Measures = {}
    for name in COUNTS:
        values = [sample[name] for sample in samples if sample.get(name) is not None]
        if values:
            found[name] = sum(values)
    for name in LEVELS:
        values = [sample[name] for sample in samples if sample.get(name) is not None]
        if values:
            found[name] = round(sum(values) / len(values), 1)
    for name in DURATIONS:
        buckets = [sample[name] for sample in samples if sample.get(name)]
        if buckets:
            found[name] = [sum(column) for column in zip(*buckets, strict=False)]
    return found


def percentile(buckets: Sequence[float] | None, share: float, bounds: Sequence[float] = BOUNDS) -> float | None:
    """Return the duration in seconds that this share of the observations does not exceed; None = there are none.

    Within a bucket the observations count as evenly spread. Beyond the last bound it is that bound.
    """
    total = sum(buckets or ())
    if not buckets or total <= 0:
        return None
    wanted, before = total * share, 0.0
    for index, number in enumerate(buckets):
        if number and before + number >= wanted:
            if index >= len(bounds):
                return bounds[-1]
            low = bounds[index - 1] if index else 0.0
            return round(low + (bounds[index] - low) * (wanted - before) / number, 3)
        before += number
    return bounds[-1]


def increase(now: float, before: float | None) -> float | None:
    """Return how much a counter grew; None = it was not known before. A smaller value means that it began again."""
    if before is None:
        return None
    return now - before if now >= before else now


def window_of(at: int, step: int) -> int:
    """Return the start of the window of this length that contains the moment. Unix seconds."""
    return at - at % step


def step_for(seconds: int, most: int = 400) -> int:
    """Return the shortest step that needs at most so many samples for this time."""
    return next((step for step in STEPS if seconds <= most * step), STEPS[-1])


def shown(measures: Mapping[str, Any]) -> Measures:
    """Return what the API shows of a sample: each name, None = not known, and durations as percentiles in seconds."""
    found: Measures = {name: measures.get(name) for name in (*COUNTS, *LEVELS)}
    for name in DURATIONS:
        bounds = _CALL_BOUNDS if name == "upstream_call" else BOUNDS
        for label, share in (("p50", 0.5), ("p95", 0.95)):
            found[f"{name}_{label}"] = percentile(measures.get(name), share, bounds)
    return found
