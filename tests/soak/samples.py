"""Samples of a platform under load, and whether they grow."""

import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis

from tests.bench.engine.processes import find_tree, read_usage, role_of
from worker.local.supervisor import Platform

# A rise counts only if it is more than this share of the level and more than the noise around the line.
_SHARE, _NOISE = 0.06, 2.0
# Rises below these are of no concern: megabytes, descriptors, threads, keys, connections.
_SMALL = {"PSS MB": 6.0, "descriptors": 4.0, "threads": 2.0, "Redis keys": 12.0, "database connections": 3.0}
# The simulated upstream keeps a ledger, on purpose.
_NOT_JUDGED = ("sandbox",)
Sample = dict[str, float]


class Sampler:
    """Reads a platform from outside: /proc, Redis and Postgres. Rows of the database grow, on purpose."""

    def __init__(self, platform: Platform) -> None:
        self.samples: list[Sample] = []
        self._platform = platform
        self._roots = platform.children

    def sample(self, at: float) -> None:
        """Add a sample, `at` seconds after the start."""
        sample: Sample = {"at": at}
        memory, descriptors, threads = Counter[str](), Counter[str](), Counter[str]()
        for child in list(self._roots.values()):
            usage = read_usage(child.pid, memory=True)
            role = role_of(child.pid)
            memory[role] += round(sum(usage.pss_mb.values()) * 1000)
            for pid in find_tree(child.pid):
                descriptors[role] += _count(Path(f"/proc/{pid}/fd"))
                threads[role] += _count(Path(f"/proc/{pid}/task"))
        for role in memory:
            sample[f"PSS MB {role}"] = memory[role] / 1000
            # Backends of Postgres come and go with the connections, which are counted below.
            if role != "postgres":
                sample[f"descriptors {role}"] = descriptors[role]
                sample[f"threads {role}"] = threads[role]
        with redis.Redis.from_url(self._platform.redis_url) as client:
            sample["Redis keys"] = float(client.dbsize())
        with psycopg.connect(self._platform.database_url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchone()
            sample["database connections"] = float(row[0]) if row else 0.0
        self.samples.append(sample)


def _count(folder: Path) -> int:
    try:
        return sum(1 for _ in folder.iterdir())
    except OSError:
        return 0


@dataclass(frozen=True)
class Verdict:
    """A measure over the last two thirds: its level at their start and end as the line has it, and the most."""

    name: str
    begin: float
    end: float
    most: float
    per_hour: float
    grows: bool


def judge(samples: list[Sample]) -> list[Verdict]:
    """Return a verdict for each measure."""
    kept = samples[len(samples) // 3 :]
    names = sorted({name for sample in kept for name in sample} - {"at"})
    return [_verdict(name, [(sample["at"], sample[name]) for sample in kept if name in sample]) for name in names]


def _verdict(name: str, points: list[tuple[float, float]]) -> Verdict:
    times, values = [at for at, _ in points], [value for _, value in points]
    if len(points) < 3 or len(set(times)) < 2:
        return Verdict(name, values[0], values[-1], max(values), 0.0, grows=False)
    slope, intercept = statistics.linear_regression(times, values)
    begin, end = intercept + slope * times[0], intercept + slope * times[-1]
    noise = statistics.pstdev(value - intercept - slope * at for at, value in points)
    small = next((limit for kind, limit in _SMALL.items() if name.startswith(kind)), 0.0)
    rise = end - begin
    grows = rise > max(_SHARE * begin, _NOISE * noise, small) and not name.endswith(_NOT_JUDGED)
    return Verdict(name, begin, end, max(values), slope * 3600, grows=grows)


def table(verdicts: list[Verdict], *, minutes: float) -> str:
    """Return the verdicts as a Markdown table."""
    head = ("measure", f"after {minutes / 3:.3g} min", f"after {minutes:.3g} min", "most", "per hour", "verdict")
    lines = [
        (
            verdict.name,
            f"{verdict.begin:.1f}",
            f"{verdict.end:.1f}",
            f"{verdict.most:.1f}",
            f"{verdict.per_hour:+.1f}",
            "growing" if verdict.grows else "flat" if not verdict.name.endswith(_NOT_JUDGED) else "not judged",
        )
        for verdict in verdicts
    ]
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
    text = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *lines]]
    ruler = "|".join("-" * (width + 2) for width in widths)
    return "\n".join([f"| {text[0]} |", f"|{ruler}|", *(f"| {line} |" for line in text[1:])])
