"""`make chaos`: break a running platform in five ways under two loads, and print what came of it.

Target: every accepted job ends, none is lost, none is paid twice. The first row of each load is undisturbed.
"""

import argparse
import json
import sys

from tests.chaos.loads import LOADS
from tests.chaos.measure import Row, measure, table
from tests.chaos.scenarios import SCENARIOS


def main() -> int:
    """Run the scenarios; returns 1 if a job was lost or paid twice."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small loads, and leases of seconds instead of a minute")
    parser.add_argument("--only", default="", help="only scenarios and loads whose name contains this; several with ;")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--logs", default="", metavar="FOLDER", help="keep the data and logs of each run here")
    args = parser.parse_args()
    words = [word for word in args.only.split(";") if word]
    rows: list[Row] = []
    for load in LOADS:
        for scenario in SCENARIOS:
            if words and not any(word in f"{load.name}: {scenario.name}" for word in words):
                continue
            print(f"... {load.name}: {scenario.name}", file=sys.stderr, flush=True)
            rows.append(measure(scenario, load, quick=args.quick, logs=args.logs))
            print(f"    {rows[-1]}", file=sys.stderr, flush=True)
    print(json.dumps([row.as_dict() for row in rows], indent=2) if args.json else table(rows))
    return 1 if any(row.lost or row.paid_twice or row.recovered < row.requests for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
