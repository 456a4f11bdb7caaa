"""When to poll an account next: as rarely as possible, but often enough around the moments when its jobs end.

A poll costs about as much as `_POLL_COST` seconds of a finished job that waits for it. With a steady rate of ends the
best interval is `sqrt(2 * cost / rate)`. Rates are not steady: they rise towards the usual end of a job. So the rule
looks for the earliest moment at which waiting no longer pays: the jobs that have probably ended by then, times the gap
to the poll that would come next anyway, exceed twice the cost. With a steady rate this is the same interval.

Pure functions without I/O. All times in seconds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

_POLL_COST = 0.42
# A second matters less after five minutes than after five seconds: jobs that usually take longer than `_USUAL` weigh
# less, by this power of the ratio.
_USUAL = 6.0
_WEIGHT_POWER = 0.35
# Each learned duration is spread over the time before it. Without this the first poll would come after the last known
# duration, find everything then, and the durations learned from it would never become shorter again.
_SPREAD_SHARE = 0.1
_MIN_SPREAD = 0.6
# Durations may be wrong, for example after the upstream changed: no wait is longer than this share of the usual one.
_TRUST_SHARE = 0.2
_MIN_TRUST = 20.0
# Refusals after the submit come early: the first look comes after this share of the usual duration, within limits.
_LOOK_SHARE = 0.3
_MIN_LOOK, _MAX_LOOK = 1.0, 10.0
# A job that usually ends within this time is looked at right after its submit.
_FAST = 0.5
# Without learned durations: this share of the age. A video takes minutes, so it is asked about more slowly.
_AGE_SHARE = 0.05
_MIN_UNLEARNED = {"video": 2.0}
_MIN_STEP = 0.02
_STEPS_PER_MEDIAN = 400
_MAX_STEPS = 4000
_GROWTH = 1.15
_REFINEMENTS = 4


@dataclass(frozen=True, slots=True)
class PollingPolicy:
    """Limits of the wait between two polls of an account in seconds, and how eager it is.

    Four times the eagerness makes the waits half as long, within the limits.
    """

    floor: float = 0.2
    ceiling: float = 60.0
    eagerness: float = 1.0


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job in flight: seconds since its submit, the sorted durations of similar jobs if known, and its kind.

    Durations are those of `duration_to_learn`. If they include more, such as seconds of saving, polls come later and
    later: each one is late by that time, and the next durations are learned from it.
    """

    age: float
    durations: tuple[float, ...] | None
    kind: str = "image"


@dataclass(frozen=True, slots=True)
class SparsePolling:
    """Polling of an upstream that limits its lists: from an early quantile of the usual duration on, at intervals.

    The first look at a job of unknown duration comes after `least`. Two polls are at least `floor` apart.
    """

    quantile: float = 0.1
    least: float = 3.0
    most: float = 10.0
    floor: float = 1.0

    def first_look(self, job: OpenJob) -> float:
        """Return the age at which a job is looked at for the first time."""
        return job.durations[int(self.quantile * len(job.durations))] if job.durations else self.least

    def next_poll(self, jobs: Iterable[OpenJob]) -> float | None:
        """Return the seconds until the account should be polled; None without open jobs."""
        waits = [self._wait(job) for job in jobs]
        return max(min(waits), self.floor) if waits else None

    def _wait(self, job: OpenJob) -> float:
        left = self.first_look(job) - job.age
        return left if left > 0 else min(max(_AGE_SHARE * job.age, self.least), self.most)


DEFAULT_POLICY = PollingPolicy()


def next_poll(
    jobs: Iterable[OpenJob], policy: PollingPolicy = DEFAULT_POLICY, *, since_poll: float | None = 0.0
) -> float | None:
    """Return the seconds until the account should be polled; None without open jobs.

    `since_poll` = seconds since the last poll of the account, None = never. Jobs that are younger have not been looked
    at. Call it after each poll and after each submit: an earlier result replaces a later one.
    """
    open_jobs = list(jobs)
    if not open_jobs:
        return None
    least = policy.floor if since_poll is None else max(policy.floor - since_poll, 0.0)
    most = max(policy.ceiling - (since_poll or 0.0), 0.0)
    looks = [first_look(job) - job.age for job in open_jobs if not _was_seen(job, since_poll)]
    if looks:
        if len(open_jobs) == 1 and looks[0] <= 0.0 and open_jobs[0].age < policy.floor:
            return 0.0  # a job alone gets its first look at once: one call more per job at most
        most = min(most, max(min(looks), 0.0))
    # By identity: hashing 150 durations for each job would cost more than all the rest.
    known: dict[int, tuple[tuple[float, ...], list[float]]] = {}
    for job in open_jobs:
        if job.durations:
            known.setdefault(id(job.durations), (job.durations, []))[1].append(job.age)
        else:
            interval = max(_AGE_SHARE * (job.age - (since_poll or 0.0)), _MIN_UNLEARNED.get(job.kind, 0.0))
            most = min(most, max(interval - (since_poll or 0.0), 0.0))
    for durations, _ in known.values():
        most = min(most, max(_trusted(durations) - (since_poll or 0.0), 0.0))
    if known and most > least:
        most = _Ends(list(known.values()), least, since_poll or 0.0).best_wait(most, 2 * _POLL_COST / policy.eagerness)
    return max(most, least)


def duration_to_learn(age: float, since_poll: float | None) -> float:
    """Return how long a job took whose end was found by a poll at this age.

    `since_poll` = seconds between that poll and the one before, None if there was none. The job ended between the two,
    or between its submit and the only one: the middle is right on average.
    """
    return age - min(age, age if since_poll is None else since_poll) / 2


def first_look(job: OpenJob) -> float:
    """Return the age at which a job is looked at for the first time, even if it cannot have ended yet."""
    if not job.durations:
        return _MIN_UNLEARNED.get(job.kind, 0.0)
    if job.durations[len(job.durations) // 4] < _FAST:
        return 0.0
    return min(max(_LOOK_SHARE * _usual(job.durations), _MIN_LOOK), _MAX_LOOK)


def _was_seen(job: OpenJob, since_poll: float | None) -> bool:
    """Return whether the last poll counts as the first look at a job."""
    if since_poll is None or job.age < since_poll:
        return False
    return job.age - since_poll >= first_look(job) / 2


def _trusted(durations: Sequence[float]) -> float:
    return max(_TRUST_SHARE * _usual(durations), _MIN_TRUST)


def _usual(durations: Sequence[float]) -> float:
    return durations[len(durations) // 2]


@dataclass(frozen=True, slots=True)
class _Survival:
    """The share of jobs that run longer than `step * index`. Behind the last entry it falls like 1 / age."""

    step: float
    shares: tuple[float, ...]
    first: int  # up to this index nothing has ended
    weight: float


@lru_cache(maxsize=256)
def _survival(durations: tuple[float, ...]) -> _Survival:
    """Return the curve of learned durations.

    The n durations take n of n + 1 shares, the last one belongs to longer jobs. Each duration is spread evenly over the
    time before it.
    """
    longest = durations[-1]
    step = max(_usual(durations) / _STEPS_PER_MEDIAN, 2 * longest / _MAX_STEPS, _MIN_STEP)
    last = int(longest / step) + 1
    slopes = [0.0] * (last + 2)
    share = 1 / (len(durations) + 1)
    for seconds in durations:
        spread = min(seconds, max(_SPREAD_SHARE * seconds, _MIN_SPREAD))
        first = int((seconds - spread) / step)
        end = max(int(seconds / step), first) + 1
        slope = share / (end - first)
        slopes[first] += slope
        slopes[end] -= slope
    ended = accumulate(accumulate(slopes[: last + 1]), initial=0.0)
    shares = [1.0 - part for part in ended][: last + 1]
    shares += [share * last / index for index in range(last + 1, 2 * last + 2)]
    first = next(index for index, slope in enumerate(slopes) if slope)
    return _Survival(step, tuple(shares), first, (_USUAL / max(_usual(durations), _USUAL)) ** _WEIGHT_POWER)


class _Ends:
    """How many jobs of an account have ended and wait for a poll, by the time from now."""

    def __init__(self, known: list[tuple[tuple[float, ...], list[float]]], least: float, since_poll: float) -> None:
        self._groups = [_Group(_survival(durations), ages, since_poll) for durations, ages in known]
        self._least = least
        self._counts: dict[float, float] = {}

    def count(self, wait: float) -> float:
        found = self._counts.get(wait)
        if found is None:
            found = self._counts[wait] = sum(group.weight * group.count(wait) for group in self._groups)
        return found

    def best_wait(self, most: float, twice_cost: float) -> float:
        """Return the earliest wait up to `most` at which waiting longer does not pay."""
        before = min(group.first_end for group in self._groups)
        before, wait = max(self._least, before), max(self._least, before, _MIN_STEP)
        while wait < most:
            if self._pays(wait, most, twice_cost):
                return self._refine(before, wait, most, twice_cost)
            before, wait = wait, wait * _GROWTH
        return most

    def _refine(self, low: float, high: float, most: float, twice_cost: float) -> float:
        for _ in range(_REFINEMENTS):
            middle = (low + high) / 2
            if middle - low < _MIN_STEP:
                break
            if self._pays(middle, most, twice_cost):
                high = middle
            else:
                low = middle
        return high

    def _pays(self, wait: float, most: float, twice_cost: float) -> bool:
        """Return whether a poll after `wait` saves more than it costs, compared with the one that would follow it."""
        ended = self.count(wait)
        if ended * most < twice_cost:
            return False
        needed = twice_cost / ended
        # The next poll follows after the gap in which as many jobs end as make it worth while in the same way.
        return (self.count(wait + needed) - ended) * needed <= twice_cost


class _Group:
    """Jobs with the same learned durations."""

    def __init__(self, survival: _Survival, ages: list[float], since_poll: float) -> None:
        self.weight = survival.weight
        self._step, self._shares = survival.step, survival.shares
        top = len(self._shares) - 1
        weights: dict[int, float] = {}
        old: dict[int, tuple[int, float, float]] = {}  # number, age now and at the last poll
        self._jobs = 0
        for age in ages:
            index, seen = int(age / self._step), max(age - since_poll, 0.0)
            if 2 * index < top:
                self._jobs += 1
                weights[index] = weights.get(index, 0.0) + 1 / self._shares[int(seen / self._step)]
            else:
                bucket = 16 * index // top
                old[bucket] = (old.get(bucket, (0, 0.0, 0.0))[0] + 1, age, max(seen, self._step))
        self._old = list(old.values())
        self._indexes, self._weights = list(weights), list(weights.values())
        self._top_index = max(weights, default=0)
        self.first_end = 0.0 if self._old else max(survival.first - self._top_index, 0) * self._step
        self._counts: dict[int, float] = {}

    def count(self, wait: float) -> float:
        """Return how many of the jobs have probably ended by then, given that they ran at the last poll."""
        place = wait / self._step
        steps = int(place)
        low = self._ended(steps)
        ended = low + (place - steps) * (self._ended(steps + 1) - low)
        return ended + sum([number * (1 - seen / (age + wait)) for number, age, seen in self._old])

    def _ended(self, steps: int) -> float:
        found = self._counts.get(steps)
        if found is None:
            found = self._counts[steps] = self._jobs - self._left(steps)
        return found

    def _left(self, steps: int) -> float:
        shares, top = self._shares, len(self._shares) - 1
        if self._top_index + steps <= top:
            places = zip(self._indexes, self._weights, strict=True)
            return sum([weight * shares[index + steps] for index, weight in places])
        tail = shares[top] * top
        return sum(
            weight * (shares[index + steps] if index + steps <= top else tail / (index + steps))
            for index, weight in zip(self._indexes, self._weights, strict=True)
        )
