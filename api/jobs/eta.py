"""Estimate the remaining time of a job from its state, the durations of similar jobs and its queue position. No I/O.

`p50` and `p90` are the median and the 90th percentile, in seconds from now; both are None once the job has ended. Half
of the jobs end before their `p50` and nine in ten before their `p90`, at each moment: the time that a job has already
run counts, because it has not ended by then.
"""

from dataclasses import dataclass

from worker.core.job_state import JobState
from worker.db.jobs.durations import DurationStats
from worker.db.jobs.queries import JobView, QueueCapacity
from worker.db.scheduling.queue_positions import MOST_AHEAD

# Used until enough jobs have finished: median and 90th percentile, seconds from submit to stored result.
_DEFAULTS = {"image": (25.0, 60.0), "video": (180.0, 480.0), "chat": (60.0, 240.0)}
_POLL_MILLISECONDS = (2000, 5000)
_EXACT_BELOW_SECONDS = 60.0
# Typical time to copy the results, and the time after which copying is late.
_SAVING_SECONDS = 5.0
_LATE_SAVING_SECONDS = 6 * _SAVING_SECONDS
LATE_TEXT = "longer than usual"


@dataclass(frozen=True, slots=True)
class Eta:
    """Remaining seconds, and the poll interval that clients should use.

    `late` = the job takes longer than nine in ten did. Then the seconds set intervals only; they are not shown.
    `at_least` = the job is so far behind in the queue that the jobs ahead are not all counted.
    """

    p50: float | None
    p90: float | None
    poll_after_ms: int
    late: bool = False
    at_least: bool = False

    @property
    def retry_after(self) -> int:
        """Value of the Retry-After header, 1..60 (openai-compat rule 11)."""
        return 2 if self.p50 is None else min(max(round(self.p50), 1), 60)

    @property
    def shown_seconds(self) -> int | None:
        """Remaining whole seconds to show; None for a late or ended job."""
        return None if self.late or self.p50 is None else max(round(self.p50), 1)

    @property
    def text(self) -> str:
        """The remaining time in words; "" once the job has ended."""
        if self.late:
            return LATE_TEXT
        if self.p50 is None:
            return ""
        return f"{'at least' if self.at_least else 'about'} {self.shown_seconds} s left"


def estimate_eta(view: JobView, *, together: int = 1) -> Eta:
    """Estimate the remaining time of a job, or of the last of several equal jobs that run `together`."""
    job = view.job
    if job.finished_at is not None:
        return Eta(p50=None, p90=None, poll_after_ms=_POLL_MILLISECONDS[0])
    if job.state == JobState.HELD:
        # Nobody knows when its time comes.
        return Eta(p50=None, p90=None, poll_after_ms=_POLL_MILLISECONDS[1])
    p50, p90 = _run_seconds(view)
    late = False
    if job.submitted_at is None:
        wait = _queue_seconds(view.capacity, view.position, p50) if job.state == JobState.QUEUED else 0.0
        p50, p90 = wait + p50, wait * 1.5 + p90
    else:
        ran = float(job.running_seconds or 0.0)
        late = ran >= p90 + (_LATE_SAVING_SECONDS if job.state == JobState.SAVING else 0.0)
        p50, p90 = _learned_remaining(view, ran, together) or _remaining(p50, p90, ran=ran)
        if job.state == JobState.SAVING:
            p50, p90 = min(p50, _SAVING_SECONDS), min(p90, _LATE_SAVING_SECONDS)
    return _make_eta(p50, p90, late=late, at_least=(view.position or 0) > MOST_AHEAD)


def _make_eta(p50: float, p90: float, *, late: bool = False, at_least: bool = False) -> Eta:
    min_ms, max_ms = _POLL_MILLISECONDS
    poll_after_ms = int(min(max(1000 * p50 / 10, min_ms), max_ms))
    return Eta(_rounded(p50), max(_rounded(p90), _rounded(p50)), poll_after_ms, late=late, at_least=at_least)


def _rounded(seconds: float) -> float:
    """Round to tenths below a minute: half a second is a large part of the spread of short jobs."""
    seconds = max(round(seconds, 1 if seconds < _EXACT_BELOW_SECONDS else 0), 0.1)
    return int(seconds) if seconds.is_integer() else seconds


def estimate_new_job_eta(kind: str, usual: DurationStats | None, line: QueueCapacity, ahead: int) -> Eta:
    """Estimate the time of a job that does not exist yet, with `ahead` jobs before it in the queue."""
    p50, p90 = (usual.p50, max(usual.p90, usual.p50)) if usual else _DEFAULTS[kind]
    wait = _queue_seconds(line, ahead + 1, p50)
    return _make_eta(wait + p50, wait * 1.5 + p90, at_least=ahead >= MOST_AHEAD)


def estimate_group_eta(views: list[JobView]) -> Eta:
    """Estimate when the last of several jobs ends."""
    together = sum(view.job.finished_at is None for view in views) or 1
    return max((estimate_eta(view, together=together) for view in views), key=lambda eta: eta.p50 or 0)


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


def _learned_remaining(view: JobView, ran: float, together: int) -> tuple[float, float] | None:
    """Remaining time by the jobs that ran longer than `ran` seconds; None if none did, or upstream knows more.

    The last of n jobs ends before a moment with probability x if each one does with probability x^(1/n).
    """
    stats, forecast = view.duration_stats, float(view.job.forecast_seconds or 0)
    if stats is None or (view.job.queue_position and forecast > stats.p50):
        return None
    p50, p90 = (stats.remaining(share ** (1 / together), ran=ran) for share in (0.5, 0.9))
    return None if p50 is None or p90 is None else (p50, p90)


def _remaining(p50: float, p90: float, *, ran: float) -> tuple[float, float]:
    """Remaining time after `ran` seconds without known durations above it. A late job is expected to take longer."""
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
