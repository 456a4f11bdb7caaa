"""`make bench`: run the scenarios of docs/performance.md on a new platform and print a table (`--json` for scripts).

The figures depend on the machine and its load: compare only figures of the same run.
"""

import argparse
import sys

from tests.bench.modes import MODES, run_mode


def main() -> int:
    """Parse the arguments and run the chosen mode."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--quick", action="store_true", help="the small scenarios only")
    parser.add_argument("--only", default="", help="only scenarios whose name contains this text")
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    for mode in MODES:
        parser.add_argument(f"--{mode.flag}", action="store_true", help=mode.help)
    return run_mode(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
