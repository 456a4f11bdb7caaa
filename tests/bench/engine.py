"""The scenarios of docs/performance.md on a new platform."""

import argparse
import json
import os
import platform as machine
import random
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

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


def run(args: argparse.Namespace) -> int:
    """Run the scenarios; returns 0 if no job failed."""
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
