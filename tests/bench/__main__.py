"""`make bench`: run the scenarios of docs/performance.md on a new platform and print a table (`--json` for scripts).

The figures depend on the machine and its load: compare only figures of the same run.
"""

import argparse
import sys
from pathlib import Path

from tests.bench.modes import MODES, run_mode


def main() -> int:
    """Parse the arguments and run the chosen mode."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--quick", action="store_true", help="the small scenarios only")
    parser.add_argument("--only", default="", help="only scenarios whose name contains this text; several with ;")
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    engine = parser.add_argument_group("scenarios of the engine")
    engine.add_argument("--repeat", type=int, default=1, help="measure each row this often, alternating the systems")
    engine.add_argument("--long", action="store_true", help="videos of 5 minutes")
    engine.add_argument("--compare", type=Path, metavar="TREE", help="another source tree of Dreamery, as further rows")
    engine.add_argument(
        "--against", default="", metavar="URL", help="another OpenAI-compatible server, as further rows"
    )
    engine.add_argument("--against-pid", type=int, help="its process, to measure CPU and memory of its tree")
    engine.add_argument("--key", default="bench{n}", help="its bearer key; {n} = number of the account")
    engine.add_argument("--port", type=int, default=0, help="port of the stand-in of the upstream, for --against")
    engine.add_argument("--size", type=int, default=2048, help="pixels of a side of the stand-in's pictures")
    engine.add_argument("--latency", type=float, default=0.0, help="seconds before each answer of the stand-in")
    parser.add_argument("--finished", type=int, default=1_000_000, help="finished jobs of --scale")
    parser.add_argument("--waiting", type=int, default=100_000, help="waiting jobs of --scale")
    for mode in MODES:
        parser.add_argument(f"--{mode.flag}", action="store_true", help=mode.help)
    return run_mode(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
