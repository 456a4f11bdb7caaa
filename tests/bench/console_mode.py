"""`make bench ARGS=--console`: measures the console of a new platform (`console.py`) and prints the figures."""

import argparse
import json
import os
import platform as machine
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.console import run as run_console
from tests.browser.conftest import REMEDY, find_chromium
from tests.support.platform import start_platform

_SETTINGS = {
    "DREAMERY_REQUESTS_PER_MINUTE": "0",
    "DREAMERY_ACCOUNT_MAX_IMAGES": "1000",
    "DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "1000000",
    "DREAMERY_LOG_LEVEL": "warning",
}


def run(args: argparse.Namespace) -> int:
    """Run the scenario `console`; returns 1 without Chromium, otherwise 0."""
    executable = find_chromium()
    if executable is None:
        print(REMEDY, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="dreamery-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with start_platform(Path(folder), workers=args.workers, extra_env=_SETTINGS) as platform:
            figures = asdict(run_console(platform, executable, jobs=100_000, scrolled=1000))
    if args.json:
        print(json.dumps(figures, indent=2))
    else:
        table = Table("console, jobs and gallery", "", title=f"{machine.machine()}, {os.cpu_count()} cores")
        for name, value in figures.items():
            parts = {f"{name} {part}": one for part, one in value.items()} if isinstance(value, dict) else {name: value}
            for part, one in parts.items():
                table.add_row(part.replace("_", " "), str(one))
        Console(width=120).print(table)
    return 0
