"""How long a job will take: plausible in every state, never negative, and better known where more is known."""

from types import SimpleNamespace
from typing import Any

import pytest

from api.jobs.eta import estimate_eta, estimate_group_eta
from worker.db.jobs.durations import Usual, size_of
from worker.db.jobs.queries import JobView, Line

LEARNED = Usual(p50=40.0, p90=80.0, count=20)


def view(state: str = "queued", **changes: Any) -> JobView:
    fields = {
        "kind": "image", "state": state, "finished_at": None, "submitted_at": None, "running_seconds": None,
        "forecast_seconds": None, "queue_position": None,
    }  # fmt: skip
    outer = {name: changes.pop(name) for name in ("position", "line", "usual") if name in changes}
    if "running_seconds" in changes:
        fields["submitted_at"] = object()
    job: Any = SimpleNamespace(**{**fields, **changes})
    return JobView(job=job, files=[], position=outer.get("position"), line=outer.get("line"), usual=outer.get("usual"))


def line(*, slots: int = 2, busy: int = 2, pace: float = 600, rest: float = 0) -> Line:
    return Line(slots=slots, busy=busy, submits_per_minute=pace, cooldown_seconds=rest)


def test_a_job_that_has_ended_is_awaited_no_more():
    over = estimate_eta(view("succeeded", finished_at=object()))
    assert (over.p50, over.p90, over.poll_after_ms, over.retry_after) == (None, None, 2000, 2)


@pytest.mark.parametrize("kind", ["image", "video", "chat"])
@pytest.mark.parametrize("state", ["queued", "submitting", "running", "saving"])
@pytest.mark.parametrize("ran", [0, 10, 100, 1000, 100_000])
def test_every_open_job_has_one(kind, state, ran):
    started = {"running_seconds": ran} if state in {"running", "saving"} else {}
    one = estimate_eta(view(state, kind=kind, **started))
    assert 1 <= one.p50 <= one.p90
    assert 1 <= one.retry_after <= 60
    assert 2000 <= one.poll_after_ms <= 5000


def test_what_was_learned_counts_more_than_what_is_assumed():
    assert estimate_eta(view("running", running_seconds=0, usual=LEARNED)).p50 == 40
    assert estimate_eta(view("running", running_seconds=30, usual=LEARNED)).p50 == 10
    assert estimate_eta(view("running", running_seconds=30, usual=LEARNED)).p90 == 50


def test_upstreams_forecast_counts_where_nothing_was_learned_or_its_line_is_long():
    assert estimate_eta(view("running", running_seconds=20, forecast_seconds=100)).p50 == 80
    learned = {"running_seconds": 20, "forecast_seconds": 100, "usual": LEARNED}
    assert estimate_eta(view("running", **learned)).p50 == 20
    assert estimate_eta(view("running", queue_position=12, **learned)).p50 == 80


def test_who_is_late_will_rather_be_very_late():
    rest = [estimate_eta(view("running", running_seconds=ran, usual=LEARNED)).p50 for ran in (60, 200, 2000)]
    assert rest == [10, 20, 200]


def test_saving_takes_seconds():
    assert estimate_eta(view("saving", running_seconds=5, usual=LEARNED)).p50 == 5


def test_the_line_is_waited_for():
    def waits(position: int, **changes: Any) -> int:
        p50 = estimate_eta(view(position=position, line=line(**changes), usual=LEARNED)).p50
        assert p50 is not None
        return p50 - 40

    assert waits(1, busy=0) == 0
    assert waits(2, busy=0) == 0
    assert waits(3, busy=0) == 20
    assert waits(1) == 20, "two slots of 40 s give one each 20 s"
    assert waits(10) == 200
    assert waits(10, slots=20, busy=0) == 1, "then only the pace counts"
    assert waits(31, slots=100, busy=0, pace=2) == 900
    assert waits(1, slots=0, rest=300) == 340


def test_several_jobs_end_with_the_last():
    quick, slow = view("running", running_seconds=0), view("running", kind="video", running_seconds=0)
    assert estimate_group_eta([quick, slow]) == estimate_group_eta([slow, quick]) == estimate_eta(slow)


def test_what_decides_how_long_an_order_takes():
    assert size_of({"order": {"prompt": "a", "resolution": "2k", "width": 9}}) == "2k"
    assert size_of({"order": {"resolution": "720p", "seconds": 10}}) == "720p 10"
    assert size_of({"order": {"messages": []}}) == ""
