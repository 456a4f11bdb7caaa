"""Progress: it never falls, whatever a job goes through."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from api.jobs.serialization import job_progress

START = datetime(2026, 1, 1, tzinfo=UTC)


def shown(state, *, ran=None, progress=0, finished=False, usual=None):
    job = SimpleNamespace(
        kind="image",
        usual_seconds=usual,
        state=state,
        progress=progress,
        submitted_at=None if ran is None else START,
        finished_at=START + timedelta(seconds=ran) if finished else None,
        running_seconds=ran,
        forecast_seconds=None,
    )
    return job_progress(SimpleNamespace(job=job, files=[]))


@pytest.mark.parametrize(
    ("state", "progress", "finished"),
    [("saving", 95, False), ("succeeded", 100, True), ("failed", 5, True), ("cancelled", 0, True)],
)
def test_progress_never_falls(state, progress, finished):
    way = [shown("queued"), shown("submitting")]
    way += [shown("running", ran=seconds, progress=5) for seconds in (0, 1, 10, 60, 600, 3600)]
    way.append(shown(state, ran=3601, progress=progress, finished=finished))
    assert way == sorted(way)
    assert all(value < 100 for value in way[:-1])
    assert (way[-1] == 100) == (state == "succeeded")


def test_what_upstream_says_counts_when_it_is_more():
    assert shown("running", ran=1, progress=60) == 60


def test_a_job_that_usually_takes_long_shows_less_at_first():
    assert shown("running", ran=30, usual=300.0) < shown("running", ran=30) < shown("running", ran=30, usual=5.0)
