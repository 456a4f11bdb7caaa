"""Estimated remaining time of a job: plausible in every state, never negative, more precise with more data."""

from types import SimpleNamespace
from typing import Any

import pytest

from api.jobs.eta import estimate_eta, estimate_group_eta
from worker.db.jobs.durations import DurationStats, size_of
from worker.db.jobs.queries import JobView, QueueCapacity

LEARNED = DurationStats(p50=40.0, p90=80.0, count=20)


def view(state: str = "queued", **changes: Any) -> JobView:
    fields = {
        "kind": "image", "state": state, "finished_at": None, "submitted_at": None, "running_seconds": None,
        "forecast_seconds": None, "queue_position": None,
    }  # fmt: skip
    outer = {name: changes.pop(name) for name in ("position", "line", "usual") if name in changes}
    if "running_seconds" in changes:
        fields["submitted_at"] = object()
    job: Any = SimpleNamespace(**{**fields, **changes})
    return JobView(
        job=job, files=[], position=outer.get("position"), capacity=outer.get("line"), duration_stats=outer.get("usual")
    )


def line(*, slots: int = 2, busy: int = 2, pace: float = 600, cooldown: float = 0) -> QueueCapacity:
    return QueueCapacity(slots=slots, busy=busy, submits_per_minute=pace, cooldown_seconds=cooldown)


def test_ended_job_has_no_eta():
    eta = estimate_eta(view("succeeded", finished_at=object()))
    assert (eta.p50, eta.p90, eta.poll_after_ms, eta.retry_after) == (None, None, 2000, 2)


@pytest.mark.parametrize("kind", ["image", "video", "chat"])
@pytest.mark.parametrize("state", ["queued", "submitting", "running", "saving"])
@pytest.mark.parametrize("ran", [0, 10, 100, 1000, 100_000])
def test_every_open_job_has_an_eta(kind, state, ran):
    started = {"running_seconds": ran} if state in {"running", "saving"} else {}
    eta = estimate_eta(view(state, kind=kind, **started))
    assert 1 <= eta.p50 <= eta.p90
    assert 1 <= eta.retry_after <= 60
    assert 2000 <= eta.poll_after_ms <= 5000


def test_learned_durations_replace_defaults():
    assert estimate_eta(view("running", running_seconds=0, usual=LEARNED)).p50 == 40
    assert estimate_eta(view("running", running_seconds=30, usual=LEARNED)).p50 == 10
    assert estimate_eta(view("running", running_seconds=30, usual=LEARNED)).p90 == 50


def test_upstream_forecast_is_used_without_data_or_in_upstream_queue():
    assert estimate_eta(view("running", running_seconds=20, forecast_seconds=100)).p50 == 80
    learned = {"running_seconds": 20, "forecast_seconds": 100, "usual": LEARNED}
    assert estimate_eta(view("running", **learned)).p50 == 20
    assert estimate_eta(view("running", queue_position=12, **learned)).p50 == 80


def test_late_job_gets_a_longer_estimate():
    remaining = [estimate_eta(view("running", running_seconds=ran, usual=LEARNED)).p50 for ran in (60, 200, 2000)]
    assert remaining == [10, 20, 200]


@pytest.mark.parametrize(
    ("state", "ran", "late"),
    [("running", 79, False), ("running", 80, True), ("running", 4000, True), ("saving", 100, False),
     ("saving", 111, True)],
)  # fmt: skip
def test_late_job_takes_longer_than_usual(state, ran, late):
    eta = estimate_eta(view(state, running_seconds=ran, usual=LEARNED))
    assert eta.late is late
    assert (eta.text == "longer than usual") is late
    assert (eta.shown_seconds is None) is late
    assert eta.retry_after >= 1


def test_saving_takes_seconds():
    assert estimate_eta(view("saving", running_seconds=5, usual=LEARNED)).p50 == 5


def test_queue_position_adds_waiting_time():
    def wait(position: int, **changes: Any) -> int:
        p50 = estimate_eta(view(position=position, line=line(**changes), usual=LEARNED)).p50
        assert p50 is not None
        return round(p50 - 40)

    assert wait(1, busy=0) == 0
    assert wait(2, busy=0) == 0
    assert wait(3, busy=0) == 20
    assert wait(1) == 20, "two slots of 40 s free one slot every 20 s"
    assert wait(10) == 200
    assert wait(10, slots=20, busy=0) == 1, "only the submit pace matters"
    assert wait(31, slots=100, busy=0, pace=2) == 900
    assert wait(1, slots=0, cooldown=300) == 340


def test_group_eta_is_that_of_the_last_job():
    quick, slow = view("running", running_seconds=0), view("running", kind="video", running_seconds=0)
    assert estimate_group_eta([quick, slow]) == estimate_group_eta([slow, quick]) == estimate_eta(slow)


def test_size_of_includes_resolution_and_seconds():
    assert size_of({"order": {"prompt": "a", "resolution": "2k", "width": 9}}) == "2k"
    assert size_of({"order": {"resolution": "720p", "seconds": 10}}) == "720p 10"
    assert size_of({"order": {"messages": []}}) == ""
