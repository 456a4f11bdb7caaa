"""`make bench`: run the scenarios of docs/performance.md on a new sandbox platform and print a table (`--json` for scripts).

The figures depend on the machine and its load: compare only figures of the same run.
"""

import argparse
import json
import os
import platform as machine
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.many import FULL, run_many, settings
from tests.bench.measure import Row, run_scenario
from tests.support.platform import start_platform
from worker.local.supervisor import Platform

# The benchmark measures the engine, so the limits that protect real accounts are raised.
_SETTINGS = {
    "DREAMERY_REQUESTS_PER_MINUTE": "0",
    "DREAMERY_ACCOUNT_MAX_IMAGES": "1000",
    "DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "1000000",
    "DREAMERY_LOG_LEVEL": "warning",
}
_COLUMNS = {
    "scenario": "scenario",
    "jobs": "jobs",
    "failed": "failed",
    "jobs_per_second": "jobs/s",
    "latency_p50": "latency p50 s",
    "delay_p50": "delay p50 s",
    "delay_p99": "delay p99 s",
    "upstream_calls_per_job": "calls/job",
    "downloads_per_job": "downloads/job",
    "cpu_ms_per_job": "CPU ms/job",
    "rss_mb": "memory MB",
}


def _prompts(count: int, accounts: int, seconds: list[float]) -> list[tuple[str, str]]:
    """(token, prompt) pairs; the digits of the script make every prompt unique in the sandbox's ledger."""
    return [
        (f"bench{i % accounts}:sandbox", f"a paper boat [[seconds:{seconds[i % len(seconds)] + i / 1e7:.7f}]]")
        for i in range(count)
    ]


def _scenarios(*, quick: bool) -> list[tuple[str, list[tuple[str, str]], int]]:
    spread = [random.Random(7).uniform(4, 8) for _ in range(1000)]
    scenarios = [
        ("0 s, one caller, 40 accounts", _prompts(40, 40, [0.0]), 1),
        ("6 s, 100 callers, 1 account", _prompts(100, 1, [6.0]), 100),
        ("4-8 s, 20 callers, 10 accounts", _prompts(80, 10, spread), 20),
        ("4-8 s, 100 callers, 1 account", _prompts(200, 1, spread), 100),
        ("4-8 s, 100 callers, 10 accounts", _prompts(200, 10, spread), 100),
        ("5 s, 500 callers, 1 account", _prompts(1000, 1, [5.0]), 500),
        ("5 s, 500 callers, 10 accounts", _prompts(1000, 10, [5.0]), 500),
    ]
    return scenarios[:4] if quick else scenarios


def _print_table(rows: list[Row], platform: Platform) -> None:
    table = Table(title=f"{machine.machine()}, {os.cpu_count()} cores, {platform.options.workers} worker processes")
    for title in _COLUMNS.values():
        table.add_column(title, justify="left" if title == "scenario" else "right")
    for row in rows:
        table.add_row(*(str(row.as_dict()[name]) for name in _COLUMNS))
    Console(width=170).print(table)


def _many(*, workers: int, as_json: bool) -> int:
    """Run the scenario `many`; returns 0 if there were no problems."""
    with tempfile.TemporaryDirectory(prefix="dreamery-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        options = {"workers": workers, "sandbox_credits": 10**7, "sandbox_seconds": 1.0}
        with start_platform(Path(folder), extra_env=settings(FULL), **options) as platform:
            figures = run_many(platform, FULL)
    if as_json:
        print(json.dumps(figures.as_dict(), indent=2))
    else:
        table = Table("many users", "", title=f"{machine.machine()}, {os.cpu_count()} cores")
        for name, value in figures.as_dict().items():
            table.add_row(name.replace("_", " "), str(value))
        Console(width=120).print(table)
    return 1 if figures.problems else 0


def _console(*, workers: int, as_json: bool) -> int:
    """Run the scenario `console`; returns 1 without Chromium, otherwise 0."""
    from tests.bench.console import run as run_console
    from tests.browser.conftest import REMEDY, find_chromium

    executable = find_chromium()
    if executable is None:
        print(REMEDY, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="dreamery-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with start_platform(Path(folder), workers=workers, extra_env=_SETTINGS) as platform:
            figures = asdict(run_console(platform, executable, jobs=10_000, scrolled=1000))
    if as_json:
        print(json.dumps(figures, indent=2))
    else:
        table = Table("console, list of jobs", "", title=f"{machine.machine()}, {os.cpu_count()} cores")
        for name, value in figures.items():
            table.add_row(name.replace("_", " "), str(value))
        Console(width=120).print(table)
    return 0


def main() -> int:
    """Run the benchmark; returns 0 if no job failed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--quick", action="store_true", help="the small scenarios only")
    parser.add_argument("--only", default="", help="only scenarios whose name contains this text")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument(
        "--many", action="store_true", help="only the scenario with 50 users, 20 accounts, 2,000 jobs, mixed outcomes"
    )
    parser.add_argument(
        "--console", action="store_true", help="only the console's job list with 10,000 jobs, in Chromium"
    )
    args = parser.parse_args()
    if args.console:
        return _console(workers=args.workers, as_json=args.json)
    if args.many:
        return _many(workers=args.workers, as_json=args.json)
    selected = [scenario for scenario in _scenarios(quick=args.quick) if args.only in scenario[0]]
    with tempfile.TemporaryDirectory(prefix="dreamery-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with start_platform(Path(folder), workers=args.workers, extra_env=_SETTINGS, sandbox_credits=10**7) as platform:
            # Warm up connections, imports and the sandbox's cached images before measuring.
            run_scenario(platform, "warm-up", _prompts(60, 10, [0.0]), concurrency=20)
            rows = []
            for name, prompts, concurrency in selected:
                print(f"... {name}", file=sys.stderr, flush=True)
                rows.append(run_scenario(platform, name, prompts, concurrency=concurrency))
            if args.json:
                print(json.dumps({"cores": os.cpu_count(), "rows": [row.as_dict() for row in rows]}, indent=2))
            else:
                _print_table(rows, platform)
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
