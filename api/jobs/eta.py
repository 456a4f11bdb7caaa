"""How much longer a job will probably take, from what is known of it, of its kind and of its place in line. No I/O.

`p50` is what to expect, `p90` what to be prepared for; seconds from now, both None once the job has ended.
"""

from dataclasses import dataclass

from worker.core.job_state import JobState
from worker.db.jobs.durations import Usual
from worker.db.jobs.queries import JobView, Line

# Until jobs of a kind have finished here: median and ninth decile, seconds from submit to stored result.
_UNLEARNED = {"image": (25.0, 60.0), "video": (180.0, 480.0), "chat": (60.0, 240.0)}
_POLL_MILLISECONDS = (2000, 5000)
# Copying the results takes about so long.
_SAVING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds until the end, and how long a client that asks again and again should pause."""

    p50: int | None
    p90: int | None
    poll_after_ms: int

    @property
    def retry_after(self) -> int:
        """The value of a Retry-After header, 1..60 (openai-compat rule 11)."""
        return 2 if self.p50 is None else min(max(self.p50, 1), 60)


def forecast(view: JobView) -> Forecast:
    """The rest of a job's way."""
    job = view.job
    if job.finished_at is not None:
        return Forecast(p50=None, p90=None, poll_after_ms=_POLL_MILLISECONDS[0])
    p50, p90 = _run_seconds(view)
    if job.submitted_at is None:
        waits = _in_line(view.line, view.position, p50) if job.state == JobState.QUEUED else 0.0
        p50, p90 = waits + p50, waits * 1.5 + p90
    else:
        p50, p90 = _left(p50, p90, ran=float(job.running_seconds or 0.0))
        if job.state == JobState.SAVING:
            p50, p90 = min(p50, _SAVING_SECONDS), min(p90, 6 * _SAVING_SECONDS)
    return _told(p50, p90)


def _told(p50: float, p90: float) -> Forecast:
    least, most = _POLL_MILLISECONDS
    seconds = max(round(p50), 1)
    return Forecast(
        p50=seconds, p90=max(round(p90), seconds), poll_after_ms=int(min(max(1000 * p50 / 10, least), most))
    )


def forecast_new(kind: str, usual: Usual | None, line: Line, ahead: int) -> Forecast:
    """The whole way of a job that does not exist yet, behind `ahead` others."""
    p50, p90 = (usual.p50, max(usual.p90, usual.p50)) if usual else _UNLEARNED[kind]
    waits = _in_line(line, ahead + 1, p50)
    return _told(waits + p50, waits * 1.5 + p90)


def forecast_all(views: list[JobView]) -> Forecast:
    """The end of the last of several jobs."""
    each = [forecast(view) for view in views]
    return max(each, key=lambda one: one.p50 or 0)


def usual_seconds(kind: str) -> float:
    """What a job of the kind takes where nothing was learned yet."""
    return _UNLEARNED[kind][0]


def _run_seconds(view: JobView) -> tuple[float, float]:
    """From submit to stored result: what was learned, and upstream's own forecast where it knows better."""
    job, told = view.job, float(view.job.forecast_seconds or 0)
    if view.usual is None:
        p50, p90 = _UNLEARNED[job.kind]
        return (told, max(told * 1.5, p90)) if told else (p50, p90)
    # While it stands in upstream's line, only upstream knows how long that is.
    if job.queue_position and told > view.usual.p50:
        return told, max(told * 1.5, view.usual.p90)
    return view.usual.p50, max(view.usual.p90, view.usual.p50)


def _left(p50: float, p90: float, *, ran: float) -> tuple[float, float]:
    """What is left of a time after `ran` seconds of it: what is late already will rather take long."""
    if ran < p50:
        return p50 - ran, p90 - ran
    if ran < p90:
        return (p90 - ran) / 2, p90 - ran
    return 0.1 * ran, 0.3 * ran


def _in_line(line: Line | None, position: int | None, run_seconds: float) -> float:
    """Seconds until a slot is free for it and the pace lets it go: the jobs before it, over what the accounts take."""
    if line is None or position is None:
        return 0.0
    if line.slots == 0:
        return line.rest_seconds + run_seconds
    ahead = position - 1
    must_end = max(ahead + 1 - max(line.slots - line.busy, 0), 0)
    by_slots = must_end * run_seconds / line.slots
    by_pace = ahead * 60 / line.submits_per_minute if line.submits_per_minute else 0.0
    return max(by_slots, by_pace)
