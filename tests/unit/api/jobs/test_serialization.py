"""Job progress never falls while the job is open."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from api.jobs.serialization import expires_at, job_progress
from worker.core.settings import get_settings

START = datetime(2026, 1, 1, tzinfo=UTC)


def progress_of(state, *, ran=None, progress=0, finished=False, usual=None):
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
    [("saving", 95, False), ("succeeded", 100, True)],
)
def test_progress_never_falls(state, progress, finished):
    values = [progress_of("queued"), progress_of("submitting")]
    values += [progress_of("running", ran=seconds, progress=5) for seconds in (0, 1, 10, 60, 600, 3600)]
    values.append(progress_of(state, ran=3601, progress=progress, finished=finished))
    assert values == sorted(values)
    assert all(value < 100 for value in values[:-1])
    assert (values[-1] == 100) == (state == "succeeded")


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_job_without_a_result_keeps_no_progress(state):
    assert progress_of(state, ran=30, progress=54, finished=True) == 0


def test_larger_upstream_progress_is_used():
    assert progress_of("running", ran=1, progress=60) == 60


def test_longer_typical_duration_means_slower_progress():
    assert (
        progress_of("running", ran=30, usual=300.0)
        < progress_of("running", ran=30)
        < progress_of("running", ran=30, usual=5.0)
    )


@pytest.mark.parametrize(
    ("platform", "own", "days"),
    [(30, 0, None), (30, None, 30), (30, 7, 7), (0, 7, 7), (0, None, None), (0, 0, None)],
)
def test_own_retention_replaces_that_of_the_platform(monkeypatch, platform, own, days):
    monkeypatch.setenv("DREAMERY_RETENTION_DAYS", str(platform))
    get_settings.cache_clear()
    job = SimpleNamespace(retention_days=own, state="succeeded", pinned_at=None, finished_at=START)
    expected = None if days is None else int((START + timedelta(days=days)).timestamp())
    try:
        assert expires_at(SimpleNamespace(job=job, files=[])) == expected
        job.pinned_at = START
        assert expires_at(SimpleNamespace(job=job, files=[])) is None, "pinned results are kept"
    finally:
        get_settings.cache_clear()
