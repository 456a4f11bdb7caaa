"""The score of an account: its parts, their weights, and the errors that count against an account."""

from dataclasses import replace
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.errors import ERRORS, Fault
from worker.db.scheduling.account_scoring import (
    MARGIN,
    WEIGHTS,
    Facts,
    Score,
    counts_against_account,
    find_better_account,
    rank,
    score,
)

FRESH = Facts(slots=2, free=2)
COUNT = st.floats(0, 1000)
ANY = st.builds(
    Facts,
    slots=st.integers(1, 50),
    free=st.integers(1, 50),
    good=COUNT,
    bad=COUNT,
    model_good=COUNT,
    model_bad=COUNT,
    credits_left=st.none() | st.integers(0, 10**6),
    price=st.none() | st.integers(0, 500),
    used=COUNT,
).map(lambda facts: replace(facts, free=min(facts.free, facts.slots)))


def test_account_without_history_is_trusted() -> None:
    parts = score(FRESH)
    assert parts == Score(health=1.0, load=1.0, success=1.0, credits=0.5, wear=1.0)
    assert parts.as_dict()["total"] == pytest.approx(11 / 12, abs=0.001)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (FRESH, replace(FRESH, bad=1.0)),
        (replace(FRESH, good=20.0, bad=1.0), replace(FRESH, good=2.0, bad=1.0)),
        (FRESH, replace(FRESH, free=1)),
        (replace(FRESH, model_bad=1.0), replace(FRESH, model_bad=3.0)),
        (replace(FRESH, credits_left=500, price=10), replace(FRESH, credits_left=30, price=10)),
        (FRESH, replace(FRESH, used=10.0)),
        # A failure weighs more than a slot, a slot more than wear.
        (replace(FRESH, free=1), replace(FRESH, bad=2.0)),
        (replace(FRESH, used=30.0), replace(FRESH, free=1)),
    ],
)
def test_better_account_has_the_higher_score(better: Facts, worse: Facts) -> None:
    assert score(better).total > score(worse).total


@given(ANY)
def test_every_part_and_the_total_are_between_0_and_1(facts: Facts) -> None:
    parts = score(facts)
    assert set(parts.as_dict()) == {*WEIGHTS, "total"}
    assert all(0 <= part <= 1 for part in parts.as_dict().values())
    assert 0 <= parts.total <= 1 + 1e-9


@given(ANY, COUNT, COUNT)
def test_score_is_monotonic_in_failures_and_successes(facts: Facts, more: float, n: float) -> None:
    assert score(replace(facts, bad=facts.bad + more)).total <= score(facts).total + 1e-9
    assert score(replace(facts, good=facts.good + n)).total >= score(facts).total - 1e-9


def test_better_account_must_exceed_the_margin() -> None:
    near, far = replace(FRESH, used=0.5), replace(FRESH, free=1)
    assert abs(score(near).total - score(FRESH).total) < MARGIN
    best, other = uuid4(), uuid4()
    assert find_better_account(other, {best: score(FRESH), other: score(near)}) is None
    assert find_better_account(other, {best: score(FRESH), other: score(far)}) == best
    assert find_better_account(best, {best: score(FRESH), other: score(far)}) is None
    assert find_better_account(other, {}) is None
    assert find_better_account(other, {best: score(FRESH)}) == best, "the account without a score is full"


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_errors_caused_by_the_job_do_not_count_against_the_account(code: str) -> None:
    blames_job = ERRORS[code].fault in {Fault.CONTENT, Fault.REQUEST, Fault.PLATFORM}
    assert counts_against_account(code) == (not blames_job and code != "concurrency_limit")


def test_account_without_credits_is_the_last_resort_for_a_job_without_a_price() -> None:
    empty, poor, failing = uuid4(), uuid4(), uuid4()
    candidates = {
        empty: replace(FRESH, credits_left=0),
        poor: replace(FRESH, credits_left=1, free=1, used=50.0),
        failing: replace(FRESH, credits_left=None, bad=30.0, model_bad=30.0, free=1, used=50.0),
    }
    scores = rank(candidates)
    assert list(scores)[-1] == empty
    assert find_better_account(empty, scores) == poor
    assert find_better_account(poor, {name: scores[name] for name in (poor, empty)}) is None
    # With a price, the credits are compared with it before.
    assert not score(replace(FRESH, credits_left=0, price=0)).last_resort
