"""The estimates hold: half of the jobs end before p50 and nine in ten before p90, within ten percentage points.

The durations come from the sandbox's own spread, the estimates from the product's code over rows in Postgres: jobs finish
one after another, and each estimate is made from those that finished before.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

import pytest

from api.jobs.eta import Eta, estimate_eta, estimate_group_eta
from tests.support.engine import Engine
from worker.db.engine import transaction
from worker.db.jobs import durations, queries
from worker.sandbox.options import Options
from worker.sandbox.state import SandboxState

Draw = Callable[[], float]
P50, P90 = (0.4, 0.6), (0.8, 1.0)
# A slot, three calls of the engine and the copy of the results, in seconds.
OVERHEAD = 0.4


@dataclass(frozen=True)
class Profile:
    """Jobs of one model and size, and what the sandbox is started with (`--seconds`, `--spread`)."""

    kind: str
    model: str
    resolution: str
    seconds: int | None
    duration: float
    spread: float


PROFILES = [
    Profile("image", "jimeng-4.0", "1k", None, 3, 1),
    Profile("image", "jimeng-4.0", "4k", None, 6, 2),
    Profile("image", "jimeng-4.5", "2k", None, 12, 12),
    Profile("image", "jimeng-3.0", "1k", None, 40, 5),
    Profile("video", "jimeng-video-3.0", "720p", 5, 90, 30),
    Profile("video", "jimeng-video-3.0", "1080p", 10, 170, 80),
    Profile("video", "jimeng-video-3.5-pro", "720p", 12, 400, 390),
]


def sandbox_durations(profile: Profile, seed: int) -> Draw:
    """Return a generator of durations as a sandbox with these options makes them."""
    sandbox = SandboxState(Options(seconds=profile.duration, spread=profile.spread, seed=seed))
    return lambda: sandbox.draw_seconds() + OVERHEAD


def heavy_tail(profile: Profile, seed: int) -> Draw:
    """Return durations of a busy upstream: mostly near the median, some several times as long."""
    rng = random.Random(seed)
    return lambda: profile.duration * rng.lognormvariate(0, 0.5)


class Jobs:
    """Rows of one profile: finished jobs, and open ones whose estimate is read."""

    def __init__(self, engine: Engine, profile: Profile) -> None:
        self.engine, self.profile = engine, profile
        self.account = engine.add_account()
        order = {"resolution": profile.resolution, "seconds": profile.seconds}
        self._order = {name: value for name, value in order.items() if value is not None}

    def add(self) -> UUID:
        return self.engine.add_job(self.account, kind=self.profile.kind, model=self.profile.model, order=self._order)

    def finish(self, durations_of: list[float]) -> None:
        """Add one finished job per duration; the last one finished last."""
        ids = [self.add() for _ in durations_of]
        self.engine.sql(
            """UPDATE jobs SET state = 'succeeded', finished_at = clock_timestamp(),
                   submitted_at = clock_timestamp() - make_interval(secs => done.seconds)
               FROM unnest(CAST(:ids AS uuid[]), CAST(:seconds AS float8[])) AS done (id, seconds)
               WHERE jobs.id = done.id""",
            ids=ids,
            seconds=durations_of,
        )
        durations.clear_cache()

    def estimates(self, *moments: float, count: int = 1) -> list[Eta]:
        """Return the estimate of running jobs at these moments (seconds since their submit); `count` = of a group."""
        found = []
        for moment in moments:
            ids = [self.add() for _ in range(count)]
            self.engine.sql(
                """UPDATE jobs SET state = 'running', account_id = :account, holds_slot = true, submit_key = id,
                       submitted_at = clock_timestamp() - make_interval(secs => :moment) WHERE id = ANY(:ids)""",
                account=self.account,
                moment=moment,
                ids=ids,
            )
            with transaction() as tx:
                views = queries.group_views(tx, ids)
            found.append(estimate_eta(views[0]) if count == 1 else estimate_group_eta(views))
            self.engine.sql("DELETE FROM job_events WHERE job_id = ANY(:ids)", ids=ids)
            self.engine.sql("DELETE FROM jobs WHERE id = ANY(:ids)", ids=ids)
        return found


class Score:
    """Counts how many jobs ended before their p50 and p90."""

    def __init__(self) -> None:
        self.count = self.before_p50 = self.before_p90 = 0

    def add(self, eta: Eta, left: float) -> None:
        assert eta.p50 is not None
        assert eta.p90 is not None
        self.count += 1
        self.before_p50 += left <= eta.p50
        self.before_p90 += left <= eta.p90

    def shares(self) -> tuple[float, float]:
        return self.before_p50 / self.count, self.before_p90 / self.count

    def check(self, name: object) -> None:
        p50, p90 = self.shares()
        print(f"{name}: {self.count} jobs, {p50:.0%} before p50, {p90:.0%} before p90")
        assert P50[0] <= p50 <= P50[1], name
        assert P90[0] <= p90 <= P90[1], name


def batches(jobs: Jobs, draw: Draw, *, size: int = 10, count: int = 24, known: int = 30) -> Iterator[list[float]]:
    """Yield batches of durations; each one is learned after it was yielded. `known` jobs have finished at the start."""
    jobs.finish([draw() for _ in range(known)])
    for _ in range(count):
        batch = [draw() for _ in range(size)]
        yield batch
        jobs.finish(batch)


@pytest.mark.parametrize("source", [sandbox_durations, heavy_tail])
@pytest.mark.parametrize(
    "profile", PROFILES, ids=lambda one: f"{one.model} {one.resolution} {one.duration}+-{one.spread}"
)
def test_estimates_hold_from_the_submit_until_the_job_is_late(
    engine: Engine, profile: Profile, source: Callable[[Profile, int], Draw]
) -> None:
    jobs, draw = Jobs(engine, profile), source(profile, PROFILES.index(profile))
    # Moments as shares of the typical duration; a late job has no estimate to hold.
    moments = [share * profile.duration for share in (0, 0.5, 0.9, 1.05)]
    scores = {moment: Score() for moment in moments}
    for batch in batches(jobs, draw):
        for moment, eta in zip(moments, jobs.estimates(*moments), strict=True):
            for duration in batch:
                if duration > moment and not eta.late:
                    scores[moment].add(eta, duration - moment)
    for moment, score in scores.items():
        if score.count >= 60:
            score.check(f"{profile.model} {source.__name__} after {moment:.1f} s")
    assert scores[0].count == 240


def score_fresh_platforms(engine: Engine, profile: Profile, *, known: int, runs: int, count: int = 1) -> Score:
    """Learn from `known` jobs, estimate one job or one group, compare with twenty; then forget everything and repeat."""
    score = Score()
    for seed in range(runs):
        jobs, draw = Jobs(engine, profile), sandbox_durations(profile, seed)
        jobs.finish([draw() for _ in range(known)])
        [eta] = jobs.estimates(0, count=count)
        for _ in range(20):
            score.add(eta, max(draw() for _ in range(count)))
        engine.sql("DELETE FROM job_events")
        engine.sql("DELETE FROM jobs")
    return score


@pytest.mark.parametrize("known", [5, 8, 20])
def test_estimates_hold_on_average_after_few_jobs(engine: Engine, known: int) -> None:
    """With few jobs a single estimate is a guess, but it must not be wrong in one direction."""
    profile = Profile("image", "jimeng-4.0", "1k", None, 30, 20)
    score_fresh_platforms(engine, profile, known=known, runs=60).check(f"after {known} jobs")


@pytest.mark.parametrize("count", [2, 4, 8])
def test_estimate_of_a_group_holds_for_its_last_job(engine: Engine, count: int) -> None:
    profile = Profile("image", "jimeng-4.0", "2k", None, 20, 10)
    score_fresh_platforms(engine, profile, known=100, runs=16, count=count).check(f"last of {count}")


@pytest.mark.parametrize("factor", [3.0, 0.3])
def test_estimates_hold_again_after_a_change_of_speed(engine: Engine, factor: float) -> None:
    jobs = Jobs(engine, Profile("image", "jimeng-4.0", "2k", None, 20, 10))
    draw, score = sandbox_durations(jobs.profile, 5), Score()
    jobs.finish([draw() for _ in range(300)])
    jobs.finish([draw() * factor for _ in range(130)])
    for batch in batches(jobs, lambda: draw() * factor, count=20):
        [eta] = jobs.estimates(0)
        for duration in batch:
            score.add(eta, duration)
    score.check(f"speed changed by {factor}")
