"""Metrics: names, help texts, buckets, and the counts of this process since the last flush.

This module does no I/O: `worker/messaging/metrics_store.py` adds the counts of all processes in Redis, from where
`/metrics` reads them. Labels must have few values: never an id, a prompt or an account.
"""

import threading
from bisect import bisect_left
from dataclasses import dataclass

_WAIT_BUCKETS = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14_400.0)
_CALL_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its help text, its labels in order, and for a histogram its bucket bounds in seconds."""

    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS: dict[str, Metric] = {
    "dreamery_requests": Metric("HTTP requests answered", ("method", "route", "status")),
    "dreamery_request_seconds": Metric("response time, including waits", ("route",), _WAIT_BUCKETS),
    "dreamery_jobs_accepted": Metric("jobs accepted", ("kind", "model")),
    "dreamery_jobs_ended": Metric(
        "ended jobs; outcome = succeeded, cancelled, or the cause of the failure (fault in the error table)",
        ("kind", "model", "state", "code", "outcome"),
    ),
    "dreamery_charge_doubts": Metric(
        "jobs that upstream may have charged without a result (submit_unclear) or more than once", ("doubt",)
    ),
    "dreamery_job_wait_seconds": Metric(
        "time from acceptance until upstream accepted the job", ("kind",), _WAIT_BUCKETS
    ),
    "dreamery_job_run_seconds": Metric("time from acceptance by upstream to the end", ("kind", "model"), _WAIT_BUCKETS),
    "dreamery_upstream_calls": Metric("upstream calls by endpoint and result", ("endpoint", "code")),
    "dreamery_upstream_seconds": Metric("duration of upstream calls", ("endpoint",), _CALL_BUCKETS),
    "dreamery_poll_delay_seconds": Metric("delay of polls", (), _CALL_BUCKETS),
    "dreamery_nudges_lost": Metric("messages that could not be sent; the tick enqueues the work again", ("task",)),
    "dreamery_webhooks": Metric("webhook attempts: delivered, failed (will be retried) or given_up", ("outcome",)),
    "dreamery_failed_keys": Metric("requests without a valid key, by outcome", ("outcome",)),
    "dreamery_requests_turned_away": Metric("requests refused because too many were in progress", ("why",)),
    "dreamery_removed": Metric("objects deleted by the cleanup", ("what",)),
    "dreamery_steps": Metric("tasks run by workers", ("step", "outcome")),
}

# (name, label values, part): part is "" for a counter; `sum`, `count` or a bucket index for a histogram.
Field = tuple[str, tuple[str, ...], str]

_lock = threading.Lock()
_counts: dict[Field, float] = {}


def count(name: str, *labels: str, by: float = 1.0) -> None:
    """Add to a counter. Label values are in the order of its `Metric`."""
    _add({(name, labels, ""): by})


def observe(name: str, seconds: float, *labels: str) -> None:
    """Record a duration in a histogram."""
    bucket = bisect_left(METRICS[name].buckets, seconds)
    _add({(name, labels, str(bucket)): 1.0, (name, labels, "sum"): seconds, (name, labels, "count"): 1.0})


def _add(changes: dict[Field, float]) -> None:
    with _lock:
        for field, by in changes.items():
            _counts[field] = _counts.get(field, 0.0) + by


def drain_counts() -> dict[Field, float]:
    """Return the counts since the last call and reset them."""
    with _lock:
        counts = dict(_counts)
        _counts.clear()
    return counts


def restore_counts(changes: dict[Field, float]) -> None:
    """Add back counts that could not be stored."""
    _add(changes)
