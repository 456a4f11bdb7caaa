"""The score of an account: what each part says, that no part outweighs its weight, and what counts against an account."""

from dataclasses import asdict, replace
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.errors import ERRORS, Fault
from worker.db.scheduling.account_scoring import MARGIN, WEIGHTS, Facts, better_than, counts_against, score

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


def test_what_is_not_known_is_trusted() -> None:
    parts = score(FRESH)
    assert asdict(parts) == {"health": 1.0, "load": 1.0, "success": 1.0, "credits": 0.5, "wear": 1.0}
    assert parts.told()["total"] == pytest.approx(11 / 12, abs=0.001)


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
def test_which_of_two_is_better(better: Facts, worse: Facts) -> None:
    assert score(better).total > score(worse).total


@given(ANY)
def test_every_part_and_the_total_are_shares(facts: Facts) -> None:
    parts = score(facts)
    assert set(asdict(parts)) == set(WEIGHTS)
    assert all(0 <= part <= 1 for part in asdict(parts).values())
    assert 0 <= parts.total <= 1 + 1e-9


@given(ANY, COUNT, COUNT)
def test_more_failures_never_raise_it_and_more_jobs_well_done_never_lower_it(
    facts: Facts, more: float, n: float
) -> None:
    assert score(replace(facts, bad=facts.bad + more)).total <= score(facts).total + 1e-9
    assert score(replace(facts, good=facts.good + n)).total >= score(facts).total - 1e-9


def test_another_is_better_only_by_a_difference_that_means_something() -> None:
    near, far = replace(FRESH, used=0.5), replace(FRESH, free=1)
    assert abs(score(near).total - score(FRESH).total) < MARGIN
    best, other = uuid4(), uuid4()
    assert better_than(other, {best: score(FRESH), other: score(near)}) is None
    assert better_than(other, {best: score(FRESH), other: score(far)}) == best
    assert better_than(best, {best: score(FRESH), other: score(far)}) is None
    assert better_than(other, {}) is None
    assert better_than(other, {best: score(FRESH)}) == best, "it is full by now"


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_what_a_job_is_to_blame_for_says_nothing_of_an_account(code: str) -> None:
    blames_job = ERRORS[code].fault in {Fault.CONTENT, Fault.REQUEST, Fault.PLATFORM}
    assert counts_against(code) == (not blames_job and code != "concurrency_limit")
