"""`make bench ARGS=--scale`: what grows with the number of jobs, on a throwaway database filled with a million of them.

Each operation runs several times in a transaction that is rolled back; the table shows medians in milliseconds. The last
column compares the largest step with the one of 10,000 finished and 10,000 waiting jobs; the target is at most twice.
No platform runs: other processes would disturb the figures, and what they do is what is measured.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psycopg
from rich.console import Console
from rich.table import Table

from tests.bench.scale_operations import OPERATIONS, Operation
from tests.bench.scale_rows import Filler
from tests.support.platform import migrate, running_postgres, running_redis
from worker.core.settings import get_settings
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, Transaction, get_engine, transaction

BASE = 10_000
MOST_RATIO = 2.0
# Rows below this are not judged: their ratio is noise.
_NOISE_MS = 2.0
_ROUNDS = 9
# One operation is repeated for no longer than this.
_SECONDS = 5.0


@dataclass(frozen=True)
class Step:
    """How many jobs have finished and wait when the operations are measured."""

    finished: int
    waiting: int

    @property
    def title(self) -> str:
        """Column title: both numbers."""
        return f"{_short(self.finished)} + {_short(self.waiting)}"


def steps(finished: int, waiting: int) -> list[Step]:
    """The steps up to these numbers, each at least as large as the one before."""
    few = min(BASE, waiting)
    middle = [Step(number, few) for number in (BASE, 100_000) if number < finished]
    last = [Step(finished, few)] if waiting > few else []
    return [Step(min(BASE, finished), 0), *middle, *last, Step(finished, waiting)]


def _short(number: int) -> str:
    return f"{number // 1_000_000} M" if number >= 1_000_000 else f"{number // 1000} k" if number else "0"


class _RolledBackError(Exception):
    """Ends a transaction without a commit."""


def roll_back() -> NoReturn:
    """Leave the transaction without a commit."""
    raise _RolledBackError


def _measure_once(operation: Operation, tx: Transaction) -> float:
    operation.prepare(tx)
    start = time.perf_counter()
    operation.run(tx)
    return time.perf_counter() - start


def median_ms(operation: Operation) -> float | None:
    """Median of several runs, each rolled back; None if a statement took too long and was cancelled."""
    seconds: list[float] = []
    began = time.perf_counter()
    while len(seconds) < _ROUNDS and (not seconds or time.perf_counter() - began < _SECONDS):
        try:
            with suppress(_RolledBackError), transaction() as tx:
                seconds.append(_measure_once(operation, tx))
                roll_back()
        except DATABASE_UNAVAILABLE_ERRORS:
            return None
    return round(1000 * statistics.median(seconds), 1)


@contextmanager
def _database() -> Iterator[str]:
    """Run Postgres and Redis for this process, and yield the URL of a migrated database."""
    # Not in memory: a million jobs with their events and files take four gigabytes.
    with tempfile.TemporaryDirectory(prefix="dreamery-scale-", dir="/var/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with running_postgres(folder) as (server, _), running_redis(folder) as (redis, _):
            server.ensure_database("scale")
            migrate(server.url("scale"))
            os.environ |= {
                "DREAMERY_DATABASE_URL": server.url("scale"),
                "DREAMERY_REDIS_URL": redis.url,
                "DREAMERY_DATA_DIR": str(folder / "data"),
                "DREAMERY_MASTER_KEY": "a master key of the benchmark that is long enough",
                "DREAMERY_RETENTION_DAYS": "0",
            }
            get_settings.cache_clear()
            get_engine.cache_clear()
            yield server.url("scale")
            get_engine().dispose()


def measure(most: list[Step], say: Callable[[str], None]) -> dict[str, list[float | None]]:
    """Fill the database step by step and measure each operation after each step."""
    figures: dict[str, list[float | None]] = {operation.name: [] for operation in OPERATIONS}
    with _database() as url, psycopg.connect(url, autocommit=True) as connection:
        filler = Filler(connection)
        for step in most:
            began = time.monotonic()
            filler.finish_until(step.finished)
            filler.wait_until(step.waiting)
            filler.settle_down()
            say(f"... {step.title}: filled in {time.monotonic() - began:.0f} s, {filler.megabytes()} MB")
            for operation in OPERATIONS:
                figures[operation.name].append(median_ms(operation))
    return figures


def ratio(figures: list[float | None], base: int) -> float | None:
    """The last figure compared with that of the base step; None if one is missing or too small to judge."""
    last, first = figures[-1], figures[base]
    if last is None or first is None:
        return None
    return round(last / max(first, _NOISE_MS / MOST_RATIO), 1)


def run(args: argparse.Namespace) -> int:
    """Run the mode; returns 1 if an operation of the target grows too much."""
    chosen = steps(args.finished, args.waiting)
    figures = measure(chosen, lambda line: print(line, file=sys.stderr, flush=True))
    base = next((index for index, step in enumerate(chosen) if step.waiting), 0)
    ratios = {name: ratio(values, base) for name, values in figures.items()}
    slow = [one.name for one in OPERATIONS if one.target and (ratios[one.name] or 99) > MOST_RATIO]
    if args.json:
        print(json.dumps({"steps": [step.title for step in chosen], "ms": figures, "ratio": ratios, "slow": slow}))
        return 1 if slow else 0
    table = Table(title=f"medians in ms; finished + waiting jobs; load {os.getloadavg()[0]:.1f}")
    table.add_column("operation (* = has a target)")
    for title in (*(step.title for step in chosen), "ratio"):
        table.add_column(title, justify="right")
    for operation in OPERATIONS:
        cells = ["> 10 s" if value is None else f"{value:.1f}" for value in figures[operation.name]]
        mark = ratios[operation.name]
        table.add_row(
            f"{operation.name}{' *' if operation.target else ''}",
            *cells,
            f"[bold red]{mark}[/]" if operation.name in slow else str(mark),
        )
    Console(width=130).print(table)
    print(f"more than {MOST_RATIO:.0f} times: {', '.join(slow) or 'none'}")
    return 1 if slow else 0
