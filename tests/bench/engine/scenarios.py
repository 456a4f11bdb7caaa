"""The scenarios of the engine: who calls, how many jobs, how long the upstream takes."""

from dataclasses import dataclass
from itertools import count

from tests.bench.load import Request

_run_numbers = count(1)


@dataclass(frozen=True)
class Limits:
    """Limits of each account: jobs in flight at a time, submits per minute."""

    slots: int
    per_minute: float


@dataclass(frozen=True)
class Scenario:
    """One row of the table. Seconds = generation time at the upstream, uniform within `spread`."""

    name: str
    callers: int
    jobs: int
    seconds: float
    accounts: int = 1
    spread: float = 0.0
    kind: str = "image"
    limits: Limits | None = None  # None = limits so high that they never matter
    busy_processes: int = 0

    @property
    def durations(self) -> dict[str, float]:
        """The options with which the stand-in is reset."""
        prefix = "video_" if self.kind == "video" else ""
        return {f"{prefix}seconds": self.seconds, f"{prefix}spread": self.spread}

    def requests(self, keys: str, jobs: int | None = None) -> list[Request]:
        """Return the requests. `{n}` in `keys` becomes the number of the account; every prompt is unique."""
        run = next(_run_numbers)
        return [
            self._request(keys.replace("{n}", str(number % self.accounts)), f"a paper boat on a lake {run}-{number}")
            for number in range(self.jobs if jobs is None else jobs)
        ]

    def _request(self, key: str, prompt: str) -> Request:
        if self.kind == "video":
            return Request("/v1/videos/generations", key, prompt, {"prompt": prompt})
        return Request("/v1/images/generations", key, prompt, {"prompt": prompt, "n": 1, "resolution": "2k"})


_REAL = Limits(slots=2, per_minute=20)
_REAL_VIDEO = Limits(slots=1, per_minute=20)


def scenarios(*, quick: bool, long: bool) -> list[Scenario]:
    """Return the scenarios, the three main ones first. `quick` = only those, with fewer jobs; `long` = real videos."""
    main = [
        Scenario("500 callers, 5 s, 1 account, 1,000 jobs", 500, 500 if quick else 1000, 5.0),
        Scenario("100 callers, 6+-2 s, 1 account", 100, 200 if quick else 400, 6.0, spread=2.0),
        Scenario("1 caller, 0 s, 1 account", 1, 20 if quick else 60, 0.0),
    ]
    if quick:
        return main
    video = 300.0 if long else 60.0
    return [
        *main,
        Scenario("500 callers, 5 s, 1 account, 3,000 jobs", 500, 3000, 5.0),
        Scenario("500 callers, 5 s, 10 accounts, 1,000 jobs", 500, 1000, 5.0, accounts=10),
        Scenario("500 callers, 5 s, 10 accounts, 3,000 jobs", 500, 3000, 5.0, accounts=10),
        Scenario("100 callers, 6+-2 s, 10 accounts", 100, 400, 6.0, spread=2.0, accounts=10),
        Scenario("500 callers, 5 s, 1 account, 1,000 jobs, busy machine", 500, 1000, 5.0, busy_processes=2),
        Scenario("real pace: pictures of 15 s, 20 accounts", 40, 160, 15.0, spread=3.0, accounts=20, limits=_REAL),
        Scenario(
            f"real pace: videos of {video:.0f} s, 20 accounts",
            20, 20, video, spread=video / 10, accounts=20, kind="video", limits=_REAL_VIDEO,
        ),
    ]  # fmt: skip
