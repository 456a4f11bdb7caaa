"""The polling rule: its limits, its waits in plain cases, and a simulation against fixed intervals."""

import math
import random

import pytest

from tests.bench.polling import LOADS, Load, adaptive, fixed, simulate
from worker.core.polling import OpenJob, PollingPolicy, SparsePolling, duration_to_learn, first_look, next_poll

_FLOOR, _CEILING = 0.2, 60.0
_SHORT = tuple(4 + 4 * n / 149 for n in range(150))  # evenly between 4 and 8 s
_LONG = tuple(270 + 60 * n / 149 for n in range(150))
_EXACT = (5.0,) * 100


def _load(name: str) -> Load:
    return next(load for load in LOADS if load.name == name)


def _in_flight(count: int, durations: tuple[float, ...]) -> list[OpenJob]:
    """Jobs submitted one after the other at equal distances, as in a closed loop."""
    return [OpenJob(durations[-1] * (n + 0.5) / count, durations) for n in range(count)]


def test_an_account_without_open_jobs_is_not_polled() -> None:
    assert next_poll([]) is None


@pytest.mark.parametrize("seed", range(20))
def test_every_wait_is_within_floor_and_ceiling(seed: int) -> None:
    rng = random.Random(seed)
    known = [None, _SHORT, _LONG, _EXACT, (0.02,) * 5, tuple(sorted(rng.lognormvariate(3, 1.5) for _ in range(7)))]
    jobs = [OpenJob(rng.expovariate(0.01), rng.choice(known)) for _ in range(rng.randint(2, 100))]
    wait = next_poll(jobs)
    assert wait is not None
    assert _FLOOR <= wait <= _CEILING


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize("durations", [None, _SHORT, _LONG, _EXACT, (0.0,) * 5, (3.0,)])
@pytest.mark.parametrize("age", [0.0, 0.1, 4.9, 5.0, 300.0, 1e5])
def test_limits_of_the_policy_hold_for_a_single_job_of_any_age(
    age: float, durations: tuple[float, ...] | None, kind: str
) -> None:
    wait = next_poll([OpenJob(age, durations, kind)], PollingPolicy(floor=1.5, ceiling=2.5))
    assert wait is not None
    assert wait == 0.0 or 1.5 <= wait <= 2.5
    assert wait > 0.0 or age < 1.5


@pytest.mark.parametrize("count", [5, 20, 80])
def test_with_a_steady_rate_of_ends_the_wait_is_the_best_interval(count: int) -> None:
    # Exponential durations: every job ends with the same rate at any age. A poll costs as much as 0.42 s of waiting, and
    # a second weighs less for jobs of a minute.
    mean = 60.0
    memoryless = tuple(-mean * math.log(1 - (n + 0.5) / 1000) for n in range(1000))
    weight = (6 / (mean * math.log(2))) ** 0.35
    wait = next_poll([OpenJob(30.0 + n, memoryless) for n in range(count)])
    assert wait == pytest.approx(math.sqrt(2 * 0.42 / (weight * count / mean)), rel=0.2)


def test_four_times_the_eagerness_halves_the_wait() -> None:
    jobs = _in_flight(8, _SHORT)
    calm, eager = next_poll(jobs), next_poll(jobs, PollingPolicy(floor=0.01, eagerness=4))
    assert calm is not None
    assert eager == pytest.approx(calm / 2, rel=0.25)


def test_more_jobs_in_flight_are_polled_more_often_down_to_the_floor() -> None:
    waits = [next_poll(_in_flight(count, _SHORT)) for count in (2, 8, 30, 100)]
    assert waits == sorted(waits, key=lambda wait: -(wait or 0.0))
    assert waits[-1] == _FLOOR


def test_jobs_that_cannot_end_yet_are_left_alone_until_their_usual_end_is_near() -> None:
    wait = next_poll([OpenJob(1.0, _EXACT)] * 100)
    assert wait is not None
    assert 4.0 < 1.0 + wait < 5.0


def test_one_job_is_asked_about_when_waiting_longer_no_longer_pays_not_when_its_first_end_is_possible() -> None:
    wait = next_poll([OpenJob(2.0, _SHORT)])
    assert wait is not None
    assert 4.3 < 2.0 + wait < 6.5


def test_a_rare_early_end_is_not_worth_a_poll() -> None:
    with_outlier = (1.0, *[30.0 + n / 10 for n in range(99)])
    wait = next_poll([OpenJob(7.0, with_outlier)])
    assert wait is not None
    assert wait > 15


def test_a_long_gap_after_a_likely_end_is_not_waited_for() -> None:
    two_modes = tuple(sorted([5 + n / 100 for n in range(50)] + [60 + n / 100 for n in range(50)]))
    wait = next_poll([OpenJob(3.0, two_modes)])
    assert wait is not None
    assert 3.0 + wait < 6.5


def test_learned_durations_are_never_trusted_longer_than_their_share() -> None:
    assert next_poll([OpenJob(20.0, _LONG)]) == pytest.approx(60, rel=0.02)
    assert next_poll([OpenJob(20.0, (90.0,) * 50)]) == pytest.approx(20, rel=0.02)


def test_a_job_older_than_every_known_one_is_asked_about_ever_more_rarely() -> None:
    waits = [next_poll([OpenJob(age, _SHORT)]) or 0.0 for age in (9, 20, 60, 300, 3000)]
    assert waits == sorted(waits)
    assert waits[0] < 5
    assert waits[-1] <= _CEILING


def test_without_learned_durations_the_wait_is_a_share_of_the_age() -> None:
    assert next_poll([OpenJob(1.0, None)]) == _FLOOR
    assert next_poll([OpenJob(40.0, None)]) == pytest.approx(2.0)
    assert next_poll([OpenJob(40.0, None), OpenJob(100.0, None)]) == pytest.approx(2.0)
    assert next_poll([OpenJob(1e6, None)]) == _CEILING
    assert next_poll([OpenJob(10.0, None, "video")]) == pytest.approx(2.0)


def test_a_new_job_gets_a_first_look_although_it_cannot_have_ended() -> None:
    look = first_look(OpenJob(0.0, _LONG))
    assert next_poll([OpenJob(0.0, _LONG)], since_poll=None) == pytest.approx(look)
    # A poll just after the submit does not count as the look.
    assert next_poll([OpenJob(0.5, _LONG)], since_poll=0.1) == pytest.approx(look - 0.5)
    assert next_poll([OpenJob(look, _LONG)]) != pytest.approx(look)


@pytest.mark.parametrize("durations", [None, (0.03,) * 8])
def test_a_job_alone_that_may_have_ended_is_looked_at_at_once_but_only_once(
    durations: tuple[float, ...] | None,
) -> None:
    assert next_poll([OpenJob(0.0, durations)], since_poll=0.02) == 0.0
    assert next_poll([OpenJob(0.0, durations)], since_poll=None) == 0.0
    assert next_poll([OpenJob(0.01, durations)], since_poll=0.0) == _FLOOR
    assert next_poll([OpenJob(0.0, durations)] * 2, since_poll=0.02) == pytest.approx(_FLOOR - 0.02)


def test_asking_again_while_waiting_gives_the_same_moment() -> None:
    first = next_poll([OpenJob(3.0, _SHORT), OpenJob(2.0, _SHORT)])
    later = next_poll([OpenJob(3.8, _SHORT), OpenJob(2.8, _SHORT)], since_poll=0.8)
    assert first is not None
    assert later == pytest.approx(first - 0.8, abs=0.1)


def test_the_order_of_jobs_does_not_matter() -> None:
    jobs = [*_in_flight(5, _SHORT), OpenJob(200.0, _LONG), OpenJob(30.0, None)]
    assert next_poll(jobs) == pytest.approx(next_poll(jobs[::-1]))


@pytest.mark.parametrize(
    ("load", "polls", "mean", "p50"),
    [
        ("100 callers, uniform 4 to 8 s", 0.4, 0.12, 0.13),
        ("100 callers, lognormal around 6 s", 0.4, 0.125, 0.13),
        ("8 callers (1.25 ends/s), uniform 4 to 8 s", 1.1, 0.45, 0.4),
        ("2 slots, uniform 12 to 18 s", 3.0, 0.9, 0.8),
        ("2 slots, always 15 s", 3.5, 0.3, 0.3),
        ("2 slots, 5 s or 25 s", 4.0, 0.8, 0.5),
        ("1 video, lognormal around 300 s", 11.0, 6.0, 6.0),
    ],
)  # fmt: skip
def test_simulated_loads_reach_their_targets(load: str, polls: float, mean: float, p50: float) -> None:
    result = simulate(_load(load), adaptive())
    assert result.polls_per_job <= polls
    assert result.mean_delay <= mean
    assert result.quantile(0.5) <= p50


@pytest.mark.parametrize("load", [load.name for load in LOADS if load.warm])
def test_at_its_delay_the_rule_needs_no_more_polls_than_a_fixed_interval(load: str) -> None:
    result = simulate(_load(load), adaptive())
    same_delay = simulate(_load(load), fixed(2 * result.mean_delay))
    assert result.polls_per_job <= 1.1 * same_delay.polls_per_job


def test_durations_learned_from_own_polls_do_not_creep_upwards() -> None:
    result = simulate(_load("2 slots, always 15 s"), adaptive())
    assert sum(result.delays[-50:]) / 50 <= 0.5


def test_wrong_durations_are_corrected_after_one_bounded_delay() -> None:
    faster = Load("upstream got faster", 2, 300, lambda rng: rng.uniform(4, 8), learned=lambda rng: rng.uniform(80, 90))
    result = simulate(faster, adaptive())
    assert max(result.delays) <= 20
    assert sorted(result.delays[-100:])[50] <= 1
    slower = Load("upstream got slower", 2, 300, lambda rng: rng.uniform(80, 90), learned=lambda rng: rng.uniform(4, 8))
    assert simulate(slower, adaptive()).quantile(0.95) <= 10


def test_the_duration_to_learn_lies_between_the_two_polls() -> None:
    assert duration_to_learn(8.0, 2.0) == 7.0
    assert duration_to_learn(8.0, 30.0) == 4.0  # the poll before was earlier than the submit
    assert duration_to_learn(8.0, None) == 4.0


def test_without_learned_durations_a_load_starts_with_few_polls_and_learns() -> None:
    result = simulate(_load("1 video, around 300 s, nothing learned"), adaptive())
    assert result.polls_per_job <= 20
    assert result.quantile(0.5) <= 6


# ---- an upstream that limits its lists


def test_sparse_polling_begins_at_an_early_quantile() -> None:
    rules, durations = SparsePolling(), tuple(float(n) for n in range(100, 200))
    assert rules.first_look(OpenJob(0.0, durations, "video")) == 110
    assert rules.next_poll([OpenJob(20.0, durations, "video")]) == 90
    assert rules.first_look(OpenJob(0.0, None, "video")) == 3


@pytest.mark.parametrize(("age", "wait"), [(111.0, 5.55), (150.0, 7.5), (300.0, 10.0), (5000.0, 10.0)])
def test_sparse_polling_then_follows_at_intervals(age: float, wait: float) -> None:
    durations = tuple(float(n) for n in range(100, 200))
    assert SparsePolling().next_poll([OpenJob(age, durations, "video")]) == pytest.approx(wait)


def test_sparse_polling_serves_the_first_of_many() -> None:
    durations = tuple(float(n) for n in range(100, 200))
    jobs = [OpenJob(age, durations, "video") for age in (0.0, 109.9, 200.0)]
    assert SparsePolling().next_poll(jobs) == 1.0, "never more often than lists are allowed"
    assert SparsePolling().next_poll([]) is None
