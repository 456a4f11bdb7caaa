"""What is counted and timed: names, help texts, buckets, and the counts of this process since they were last taken.

Nothing here does I/O: `worker/messaging/metrics_store.py` carries the counts of every process to Redis, where
`/metrics` adds them up. Labels must have few values: never an id, a prompt or an account.
"""

import threading
from bisect import bisect_left
from dataclasses import dataclass

_WAITS = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14_400.0)
_CALLS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its help text, its labels in order, and for a histogram its bucket bounds in seconds."""

    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS: dict[str, Metric] = {
    "dreamery_requests": Metric("HTTP requests answered", ("method", "route", "status")),
    "dreamery_request_seconds": Metric("time to answer, waits included", ("route",), _WAITS),
    "dreamery_jobs_accepted": Metric("jobs accepted", ("kind", "model")),
    "dreamery_jobs_ended": Metric(
        "jobs that ended; outcome = succeeded, cancelled, or at whom the failure lies (fault of the error table)",
        ("kind", "model", "state", "code", "outcome"),
    ),
    "dreamery_job_wait_seconds": Metric("from acceptance until upstream had the job", ("kind",), _WAITS),
    "dreamery_job_run_seconds": Metric("from upstream's acceptance to the end", ("kind", "model"), _WAITS),
    "dreamery_upstream_calls": Metric("calls to upstream, by endpoint and what came of them", ("endpoint", "code")),
    "dreamery_upstream_seconds": Metric("time of a call to upstream", ("endpoint",), _CALLS),
    "dreamery_poll_delay_seconds": Metric("how late polls are", (), _CALLS),
    "dreamery_nudges_lost": Metric("messages that could not be sent; the tick makes them good", ("task",)),
    "dreamery_webhooks": Metric("webhook attempts: delivered, failed (tried again) or given_up", ("outcome",)),
    "dreamery_failed_keys": Metric("requests without a valid key, by what became of them", ("outcome",)),
    "dreamery_requests_turned_away": Metric("requests refused because too many were open", ("why",)),
    "dreamery_removed": Metric("what the clean-up has removed", ("what",)),
    "dreamery_steps": Metric("steps run by workers", ("step", "outcome")),
}

# (name, label values, part): part is "" for a counter, `sum`, `count` or the index of a bucket for a histogram.
Field = tuple[str, tuple[str, ...], str]

_lock = threading.Lock()
_counts: dict[Field, float] = {}


def count(name: str, *labels: str, by: float = 1.0) -> None:
    """Add to a counter; label values in the order of its `Metric`."""
    _add({(name, labels, ""): by})


def observe(name: str, seconds: float, *labels: str) -> None:
    """Put a time into a histogram."""
    bucket = bisect_left(METRICS[name].buckets, seconds)
    _add({(name, labels, str(bucket)): 1.0, (name, labels, "sum"): seconds, (name, labels, "count"): 1.0})


def _add(changes: dict[Field, float]) -> None:
    with _lock:
        for field, by in changes.items():
            _counts[field] = _counts.get(field, 0.0) + by


def drain_counts() -> dict[Field, float]:
    """The counts since the last call; they are the caller's now."""
    with _lock:
        taken = dict(_counts)
        _counts.clear()
    return taken


def restore_counts(changes: dict[Field, float]) -> None:
    """Counts that could not be carried away count on here."""
    _add(changes)
