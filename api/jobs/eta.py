"""Estimate the remaining time of a job from its state, the durations of similar jobs and its queue position. No I/O.

`p50` and `p90` are the median and the 90th percentile, in seconds from now; both are None once the job has ended.
"""

from dataclasses import dataclass

from worker.core.job_state import JobState
from worker.db.jobs.durations import DurationStats
from worker.db.jobs.queries import JobView, QueueCapacity

# Used until enough jobs have finished: median and 90th percentile, seconds from submit to stored result.
_DEFAULTS = {"image": (25.0, 60.0), "video": (180.0, 480.0), "chat": (60.0, 240.0)}
_POLL_MILLISECONDS = (2000, 5000)
# Typical time to copy the results.
_SAVING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Eta:
    """Remaining seconds, and the poll interval that clients should use."""

    p50: int | None
    p90: int | None
    poll_after_ms: int

    @property
    def retry_after(self) -> int:
        """Value of the Retry-After header, 1..60 (openai-compat rule 11)."""
        return 2 if self.p50 is None else min(max(self.p50, 1), 60)


def estimate_eta(view: JobView) -> Eta:
    """Estimate the remaining time of a job."""
    job = view.job
    if job.finished_at is not None:
        return Eta(p50=None, p90=None, poll_after_ms=_POLL_MILLISECONDS[0])
    p50, p90 = _run_seconds(view)
    if job.submitted_at is None:
        wait = _queue_seconds(view.capacity, view.position, p50) if job.state == JobState.QUEUED else 0.0
        p50, p90 = wait + p50, wait * 1.5 + p90
    else:
        p50, p90 = _remaining(p50, p90, ran=float(job.running_seconds or 0.0))
        if job.state == JobState.SAVING:
            p50, p90 = min(p50, _SAVING_SECONDS), min(p90, 6 * _SAVING_SECONDS)
    return _make_eta(p50, p90)


def _make_eta(p50: float, p90: float) -> Eta:
    min_ms, max_ms = _POLL_MILLISECONDS
    seconds = max(round(p50), 1)
    return Eta(p50=seconds, p90=max(round(p90), seconds), poll_after_ms=int(min(max(1000 * p50 / 10, min_ms), max_ms)))


def estimate_new_job_eta(kind: str, usual: DurationStats | None, line: QueueCapacity, ahead: int) -> Eta:
    """Estimate the time of a job that does not exist yet, with `ahead` jobs before it in the queue."""
    p50, p90 = (usual.p50, max(usual.p90, usual.p50)) if usual else _DEFAULTS[kind]
    wait = _queue_seconds(line, ahead + 1, p50)
    return _make_eta(wait + p50, wait * 1.5 + p90)


def estimate_group_eta(views: list[JobView]) -> Eta:
    """Estimate when the last of several jobs ends."""
    return max((estimate_eta(view) for view in views), key=lambda eta: eta.p50 or 0)


def default_seconds(kind: str) -> float:
    """Median duration of a job of this kind before durations were learned."""
    return _DEFAULTS[kind][0]


def _run_seconds(view: JobView) -> tuple[float, float]:
    """From submit to stored result: learned durations, or upstream's own forecast where it is more accurate."""
    job, forecast = view.job, float(view.job.forecast_seconds or 0)
    if view.duration_stats is None:
        p50, p90 = _DEFAULTS[job.kind]
        return (forecast, max(forecast * 1.5, p90)) if forecast else (p50, p90)
    # While the job is in upstream's queue, only upstream knows the waiting time.
    if job.queue_position and forecast > view.duration_stats.p50:
        return forecast, max(forecast * 1.5, view.duration_stats.p90)
    return view.duration_stats.p50, max(view.duration_stats.p90, view.duration_stats.p50)


def _remaining(p50: float, p90: float, *, ran: float) -> tuple[float, float]:
    """Remaining time after `ran` seconds. A job that is already late is expected to take longer."""
    if ran < p50:
        return p50 - ran, p90 - ran
    if ran < p90:
        return (p90 - ran) / 2, p90 - ran
    return 0.1 * ran, 0.3 * ran


def _queue_seconds(line: QueueCapacity | None, position: int | None, run_seconds: float) -> float:
    """Seconds until a slot is free and the submit pace allows the job: the jobs before it over the throughput."""
    if line is None or position is None:
        return 0.0
    if line.slots == 0:
        return line.cooldown_seconds + run_seconds
    ahead = position - 1
    must_end = max(ahead + 1 - max(line.slots - line.busy, 0), 0)
    by_slots = must_end * run_seconds / line.slots
    by_pace = ahead * 60 / line.submits_per_minute if line.submits_per_minute else 0.0
    return max(by_slots, by_pace)
