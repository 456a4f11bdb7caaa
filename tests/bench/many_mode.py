"""`make bench ARGS=--many`: runs the scenario of `many.py` on a new platform and prints its figures."""

import argparse
import json
import os
import platform as machine
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.many import FULL, run_many, settings
from tests.support.platform import start_platform


def run(args: argparse.Namespace) -> int:
    """Run the scenario `many`; returns 0 if there were no problems."""
    with tempfile.TemporaryDirectory(prefix="dreamery-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        options = {"workers": args.workers, "sandbox_credits": 10**7, "sandbox_seconds": 1.0}
        with start_platform(Path(folder), extra_env=settings(FULL), **options) as platform:
            figures = run_many(platform, FULL)
    if args.json:
        print(json.dumps(figures.as_dict(), indent=2))
    else:
        table = Table("many users", "", title=f"{machine.machine()}, {os.cpu_count()} cores")
        for name, value in figures.as_dict().items():
            table.add_row(name.replace("_", " "), str(value))
        Console(width=120).print(table)
    return 1 if figures.problems else 0
