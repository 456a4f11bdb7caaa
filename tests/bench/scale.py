"""`make bench ARGS=--scale`: what grows with the number of jobs, on throwaway databases filled with up to a million of them.

Each operation runs several times in a transaction that is rolled back, in turn on a database with 10,000 finished and
10,000 waiting jobs and on the growing one, so that the load of the machine disturbs both. The table shows medians in
milliseconds, and how many times as much the growing database costs; the target is at most twice. No platform runs.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import psycopg
from rich.console import Console
from rich.table import Table

from tests.bench.scale_operations import OPERATIONS, Operation
from tests.bench.scale_rows import Filler
from tests.support.platform import migrate, running_postgres, running_redis
from worker.core.settings import get_settings
from worker.db import engine as engine_module
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, Transaction, new_engine, transaction

BASE = 10_000
MOST_RATIO = 2.0
# Rows below this are not judged: their ratio is noise.
_NOISE_MS = 5.0
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
    idle = [Step(number, 0) for number in (100_000,) if number < finished]
    last = [Step(finished, few)] if waiting > few else []
    return [*idle, Step(finished, 0), *last, Step(finished, waiting)]


def _short(number: int) -> str:
    return f"{number // 1_000_000} M" if number >= 1_000_000 else f"{number // 1000} k" if number else "0"


class Databases:
    """The two databases that the operations of this process use in turn."""

    def __init__(self, urls: dict[str, str]) -> None:
        self._urls = urls
        self._engines: dict[str, Any] = {}

    def use(self, name: str) -> None:
        """Let `transaction()` open transactions of this database."""
        os.environ["DREAMERY_DATABASE_URL"] = self._urls[name]
        get_settings.cache_clear()
        if name not in self._engines:
            self._engines[name] = new_engine()
        setattr(engine_module, "get_engine", lambda: self._engines[name])  # noqa: B010 - a function of ours

    def close(self) -> None:
        """Close all connections."""
        for engine in self._engines.values():
            engine.dispose()


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


def measure_in_turn(operation: Operation, databases: Databases) -> dict[str, float | None]:
    """Medians in milliseconds on both databases; None if a statement took too long and was cancelled."""
    seconds: dict[str, list[float]] = {"base": [], "grown": []}
    cancelled: set[str] = set()
    began = time.perf_counter()
    while len(seconds["base"]) < _ROUNDS and (not seconds["base"] or time.perf_counter() - began < _SECONDS):
        for name, values in seconds.items():
            databases.use(name)
            try:
                with suppress(_RolledBackError), transaction(plan_once=operation.plan_once) as tx:
                    values.append(_measure_once(operation, tx))
                    roll_back()
            except DATABASE_UNAVAILABLE_ERRORS:
                cancelled.add(name)
    return {
        name: None if name in cancelled else round(1000 * statistics.median(values), 1)
        for name, values in seconds.items()
    }


@contextmanager
def _servers() -> Iterator[dict[str, str]]:
    """Run Postgres and Redis for this process, and yield the URLs of two migrated databases."""
    # Not in memory: a million jobs with their events and files take four gigabytes.
    with tempfile.TemporaryDirectory(prefix="dreamery-scale-", dir="/var/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with running_postgres(folder) as (server, _child), running_redis(folder) as (redis, _other):
            urls = {name: server.url(name) for name in ("base", "grown")}
            for database, url in urls.items():
                server.ensure_database(database)
                migrate(url)
            os.environ |= {
                "DREAMERY_REDIS_URL": redis.url,
                "DREAMERY_DATA_DIR": str(folder / "data"),
                "DREAMERY_MASTER_KEY": "a master key of the benchmark that is long enough",
                "DREAMERY_RETENTION_DAYS": "0",
            }
            yield urls


def measure(chosen: list[Step], say: Callable[[str], None]) -> dict[str, list[tuple[float | None, float | None]]]:
    """Fill the databases and measure each operation after each step: milliseconds, and the ratio to the base."""
    figures: dict[str, list[tuple[float | None, float | None]]] = {operation.name: [] for operation in OPERATIONS}
    with _servers() as urls, ExitStack() as stack:
        fillers = {
            name: Filler(stack.enter_context(psycopg.connect(url, autocommit=True))) for name, url in urls.items()
        }
        databases = Databases(urls)
        stack.callback(databases.close)
        _fill(fillers["base"], Step(min(BASE, chosen[-1].finished), min(BASE, chosen[-1].waiting)))
        for step in chosen:
            began = time.monotonic()
            _fill(fillers["grown"], step)
            say(f"... {step.title}: filled in {time.monotonic() - began:.0f} s, {fillers['grown'].megabytes()} MB")
            for operation in OPERATIONS:
                found = measure_in_turn(operation, databases)
                figures[operation.name].append((found["grown"], ratio(found["grown"], found["base"])))
    return figures


def _fill(filler: Filler, step: Step) -> None:
    filler.finish_until(step.finished)
    filler.wait_until(step.waiting)
    filler.settle_down()


def ratio(grown: float | None, base: float | None) -> float | None:
    """How many times as much as the base; None if one is missing. What is too small to judge counts as the smallest."""
    if grown is None or base is None:
        return None
    return round(max(grown, _NOISE_MS) / max(base, _NOISE_MS), 1)


def run(args: argparse.Namespace) -> int:
    """Run the mode; returns 1 if an operation of the target grows too much."""
    chosen = steps(args.finished, args.waiting)
    figures = measure(chosen, lambda line: print(line, file=sys.stderr, flush=True))
    last = {name: values[-1][1] for name, values in figures.items()}
    slow = [one.name for one in OPERATIONS if one.target and (last[one.name] or 99) > MOST_RATIO]
    if args.json:
        print(json.dumps({"steps": [step.title for step in chosen], "ms, ratio": figures, "slow": slow}))
        return 1 if slow else 0
    table = Table(
        title=f"ms (times 10 k + 10 k) with finished + waiting jobs; load {os.getloadavg()[0]:.1f}",
    )
    table.add_column("operation (* = has a target)")
    for step in chosen:
        table.add_column(step.title, justify="right")
    for operation in OPERATIONS:
        cells = ["> 10 s" if ms is None else f"{ms:.1f} ({times})" for ms, times in figures[operation.name]]
        table.add_row(f"{operation.name}{' *' if operation.target else ''}", *cells)
    Console(width=140).print(table)
    print(f"more than {MOST_RATIO:.0f} times as much: {', '.join(slow) or 'none'}")
    return 1 if slow else 0
