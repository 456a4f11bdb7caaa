"""Quantiles of known durations, and of those that a running job has not passed yet."""

import random

import pytest

from worker.db.jobs.durations import DurationStats

TEN = DurationStats.of([float(second) for second in range(10, 110, 10)])


def test_quantiles_divide_the_possible_durations_into_equal_shares():
    assert (TEN.p50, TEN.p90, TEN.count) == (55, 99, 10)
    assert DurationStats.of([7.0]).p50 == 7
    assert DurationStats.of([30.0, 10.0, 20.0]).seconds == (10, 20, 30)


def test_ninetieth_percentile_of_few_jobs_is_above_the_longest():
    few = DurationStats.of([10.0, 11.0, 12.0, 13.0, 14.0])
    assert few.p90 == pytest.approx(14.4)


def test_time_already_run_counts():
    assert TEN.remaining(0.5, ran=0) == 55
    assert TEN.remaining(0.5, ran=50) == pytest.approx(30), "the longer jobs took 60 to 100 s"
    assert TEN.remaining(0.5, ran=95) == pytest.approx(5), "only the one of 100 s is left"
    assert TEN.remaining(0.9, ran=95) == pytest.approx(9)


@pytest.mark.parametrize("ran", [100, 100.5, 10_000])
def test_nothing_is_known_about_a_job_longer_than_all(ran):
    assert TEN.remaining(0.5, ran=ran) is None


def test_quantiles_are_ordered_and_never_negative():
    rng = random.Random(4)
    for _ in range(300):
        stats = DurationStats.of([rng.lognormvariate(2, 1) for _ in range(rng.randint(1, 30))])
        ran = rng.uniform(0, 40)
        p50, p90 = stats.remaining(0.5, ran=ran), stats.remaining(0.9, ran=ran)
        assert stats.p50 <= stats.p90
        assert (p50 is None) == (p90 is None)
        if p50 is not None:
            assert 0 <= p50 <= p90


def test_no_durations_have_no_quantiles():
    with pytest.raises(ValueError, match="no durations"):
        DurationStats.of([])
