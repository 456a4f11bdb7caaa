"""The modes of the benchmark. One line here adds a mode and its flag; the module of a mode is imported only when it runs."""

import argparse
import sys
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Mode:
    """A mode of `make bench`: `--<flag>` calls `run(args)` of `tests.bench.<module>`, which returns the exit code."""

    flag: str
    module: str
    help: str


# Without a flag the engine scenarios run. The parsed options are in `__main__.py`.
ENGINE = Mode("engine", "engine.run", "only the scenarios of the engine (default)")
MODES = (
    ENGINE,
    Mode("polling", "polling", "only the simulation of polling rules (no platform, some seconds)"),
    Mode("many", "many_mode", "only the scenario with 50 users, 20 accounts, 2,000 jobs, mixed outcomes"),
    Mode("small", "small", "only 20 pictures and a video for one person on a host with 512 MB and half a core"),
    Mode("scale", "scale", "only what grows with up to 1,000,000 finished and 100,000 waiting jobs (no platform)"),
    Mode("console", "console_mode", "only the console's job list with 10,000 jobs, in Chromium"),
)


def run_mode(args: argparse.Namespace) -> int:
    """Run the mode whose flag was given; returns its exit code."""
    chosen = [mode for mode in MODES if getattr(args, mode.flag.replace("-", "_"))]
    if len(chosen) > 1:
        print("Choose one of: " + ", ".join(f"--{mode.flag}" for mode in chosen), file=sys.stderr)
        return 2
    code: int = import_module(f"tests.bench.{(chosen or [ENGINE])[0].module}").run(args)
    return code
