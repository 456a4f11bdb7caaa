"""Simulates the polls of one account: delay against calls for a rule, with durations that are learned on the way.

`make bench ARGS=--polling` prints the table of docs/performance.md. Everything is deterministic.
"""

import argparse
import heapq
import random
import statistics
from bisect import insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from worker.core.polling import OpenJob, PollingPolicy, duration_to_learn, next_poll

# From the poll that finds a result to the caller's next submit.
_PAUSE_SECONDS = 0.1
_LEARN_SECONDS = 30.0
_MIN_LEARNED, _MAX_LEARNED = 5, 150
Draw = Callable[[random.Random], float]
# A rule: open jobs, seconds since the last poll (None = never) -> seconds until the next one.
Rule = Callable[[list[OpenJob], float | None], float | None]


@dataclass(frozen=True)
class Load:
    """A closed loop of `callers` on one account; durations of the upstream in seconds."""

    name: str
    callers: int
    jobs: int
    draw: Draw
    kind: str = "image"
    start_spread: float = 1.0  # the callers start within this time
    warm: bool = True  # durations were learned before
    learned: Draw | None = None  # what was learned, if the upstream took another time then


@dataclass
class Result:
    """What a rule achieved."""

    polls: int = 0
    delays: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def polls_per_job(self) -> float:
        return self.polls / len(self.delays)

    @property
    def mean_delay(self) -> float:
        return statistics.fmean(self.delays)

    @property
    def optimum(self) -> float:
        """Polls per job that this mean delay costs with a steady rate of ends: 1 / (2 * delay * rate)."""
        return self.seconds / (2 * self.mean_delay * len(self.delays))

    def quantile(self, share: float) -> float:
        """The delay within which this share of the jobs was found."""
        ordered = sorted(self.delays)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def adaptive(policy: PollingPolicy | None = None) -> Rule:
    """The rule of the engine."""
    chosen = policy or PollingPolicy()
    return lambda jobs, since_poll: next_poll(jobs, chosen, since_poll=since_poll)


def fixed(interval: float) -> Rule:
    """A poll every `interval` seconds while jobs are open."""
    return lambda _jobs, since_poll: interval if since_poll is None else max(interval - since_poll, 0.0)


class _Learned:
    """The newest durations as the engine learns them, read every half minute."""

    def __init__(self, first: list[float]) -> None:
        self._newest = deque(first, maxlen=_MAX_LEARNED)
        self._read_at = 0.0
        self._sorted = self._read()

    def _read(self) -> tuple[float, ...] | None:
        return tuple(sorted(self._newest)) if len(self._newest) >= _MIN_LEARNED else None

    def add(self, seconds: float) -> None:
        self._newest.append(seconds)

    def at(self, now: float) -> tuple[float, ...] | None:
        if now - self._read_at >= _LEARN_SECONDS:
            self._read_at, self._sorted = now, self._read()
        return self._sorted


def simulate(load: Load, rule: Rule, *, seed: int = 1) -> Result:
    """Run a load to its end."""
    rng, result = random.Random(seed), Result()
    earlier = load.learned or load.draw
    learned = _Learned([earlier(rng) for _ in range(40)] if load.warm else [])
    submits = sorted(rng.uniform(0, load.start_spread) for _ in range(load.callers))
    left, running = load.jobs, list[tuple[float, float]]()  # (end, submit)
    last_poll, due, now = None, float("inf"), 0.0
    while submits or running:
        if submits and submits[0] <= due:
            now = heapq.heappop(submits)
            if left:
                left -= 1
                insort(running, (now + load.draw(rng), now))
        else:
            since_poll, now = None if last_poll is None else due - last_poll, due
            last_poll = now
            result.polls += 1
            due = float("inf")
            for end, submit in [job for job in running if job[0] <= now]:
                running.remove((end, submit))
                result.delays.append(now - end)
                learned.add(duration_to_learn(now - submit, since_poll))
                heapq.heappush(submits, now + _PAUSE_SECONDS)
        jobs = [OpenJob(now - submit, learned.at(now), load.kind) for _, submit in running]
        wait = rule(jobs, None if last_poll is None else now - last_poll)
        due = float("inf") if wait is None else min(due, now + wait) if due > now else now + wait
    result.seconds = now
    return result


def lognormal(median: float, sigma: float) -> Draw:
    """Durations as recorded for most models."""
    return lambda rng: median * rng.lognormvariate(0, sigma)


LOADS = (
    Load("100 callers, uniform 4 to 8 s", 100, 1500, lambda rng: rng.uniform(4, 8)),
    Load("100 callers, lognormal around 6 s", 100, 1500, lognormal(6, 0.25)),
    Load("8 callers (1.25 ends/s), uniform 4 to 8 s", 8, 600, lambda rng: rng.uniform(4, 8)),
    Load("2 slots, uniform 12 to 18 s", 2, 300, lambda rng: rng.uniform(12, 18)),
    Load("2 slots, lognormal around 15 s", 2, 300, lognormal(15, 0.2)),
    Load("2 slots, always 15 s", 2, 300, lambda _: 15.0),
    Load("2 slots, 5 s or 25 s", 2, 300, lambda rng: (5 if rng.random() < 0.5 else 25) * rng.uniform(0.95, 1.05)),
    Load("1 video, lognormal around 300 s", 1, 60, lognormal(300, 0.1), kind="video"),
    Load("1 video, around 300 s, nothing learned", 1, 60, lognormal(300, 0.1), kind="video", warm=False),
    Load("2 slots, 15 s, nothing learned", 2, 300, lambda rng: rng.uniform(12, 18), warm=False),
)
FIXED = (1.0, 0.25)


def run(_args: argparse.Namespace) -> int:
    """Print one row per load: polls per job at the mean delay, of the rule and of fixed intervals."""
    fixed_heads = [f"every {interval:g} s" for interval in FIXED]
    heads = ["load", "rule", "p50 / p95 s", "a steady interval with the same mean delay", *fixed_heads]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for load in LOADS:
        result = simulate(load, adaptive())
        quantiles = f"{result.quantile(0.5):.2f} / {result.quantile(0.95):.2f}"
        cells = [load.name, _cell(result), quantiles, f"{result.optimum:.2f}"]
        print(f"| {' | '.join([*cells, *(_cell(simulate(load, fixed(interval))) for interval in FIXED)])} |")
    return 0


def _cell(result: Result) -> str:
    return f"{result.polls_per_job:.2f} at {result.mean_delay:.2f} s"
