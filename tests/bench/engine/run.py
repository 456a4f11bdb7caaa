"""The mode `engine`: every scenario on Dreamery and, if asked, on other systems, one after the other in one run."""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import httpx

from tests.bench.engine.measure import Pauses, Row, measure
from tests.bench.engine.scenarios import scenarios
from tests.bench.engine.tables import cost_table, speed_table
from tests.bench.engine.targets import Dreamery, Other
from worker.local.processes import ChildSpec, ProcessSupervisor, free_port

_ROOT = Path(__file__).resolve().parents[3]


def run(args: argparse.Namespace) -> int:
    """Run the scenarios; returns 1 if a job failed on this tree or the ledger shows a violation."""
    words = [word for word in args.only.split(";") if word]
    chosen = [
        one
        for one in scenarios(quick=args.quick, long=args.long)
        if not words or any(word in one.name for word in words)
    ]
    pauses = Pauses(idle=6.0, settle=3.0) if args.quick else Pauses()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="dreamery-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        supervisor = ProcessSupervisor()
        try:
            stand_in = start_stand_in(
                supervisor, folder, port=args.port or free_port(), size=args.size, latency=args.latency
            )
            print(f"The stand-in of the upstream listens on {stand_in}", file=sys.stderr, flush=True)
            targets = _targets(args, supervisor, folder, stand_in)
            for scenario in chosen:
                for _ in range(args.repeat):
                    for target in targets:
                        print(f"... {scenario.name}: {target.name}", file=sys.stderr, flush=True)
                        with target.started(scenario) as running:
                            rows.append(measure(running, scenario, stand_in=stand_in, pauses=pauses))
                        print(_progress(rows[-1]), file=sys.stderr, flush=True)
        finally:
            supervisor.close()
    if args.json:
        print(json.dumps({"cores": os.cpu_count(), "rows": [row.as_dict() for row in rows]}, indent=2))
    else:
        print(f"{os.cpu_count()} cores\n\n{speed_table(rows)}\n\n{cost_table(rows)}")
    return 1 if any(row.failed or row.violations for row in rows if row.target == "Dreamery") else 0


def _targets(
    args: argparse.Namespace, supervisor: ProcessSupervisor, folder: Path, stand_in: str
) -> list[Dreamery | Other]:
    targets: list[Dreamery | Other] = []
    trees = [("Dreamery", _ROOT)] + ([(args.compare.name, args.compare.resolve())] if args.compare else [])
    for name, tree in trees:
        targets.append(Dreamery(name, tree, supervisor, folder, stand_in, args.workers))
    if args.against:
        targets.append(Other(args.against, args.against.rstrip("/"), args.key, args.against_pid))
    return targets


def start_stand_in(supervisor: ProcessSupervisor, folder: Path, *, port: int, size: int, latency: float) -> str:
    """Start the stand-in; return its address."""
    options = ("--port", str(port), "--size", str(size), "--latency", str(latency))
    command = (sys.executable, "-m", "tests.bench.stand_in", *options)
    child = supervisor.start(ChildSpec("stand-in", command, dict(os.environ), _ROOT, folder / "stand-in.log"))
    url = f"http://127.0.0.1:{port}"
    transport = httpx.HTTPTransport(retries=10)  # a picture of 4096 x 4096 takes seconds to make
    with httpx.Client(transport=transport, timeout=60, trust_env=False) as http:
        http.get(f"{url}/_health").raise_for_status()
    if child.exit_code is not None:
        raise RuntimeError(f"the stand-in ended: {child.log_tail()}")
    return url


def _progress(row: Row) -> str:
    delay = f"{row.delay[0]:.2f} s" if row.delay else "-"
    return f"    {row.jobs_per_second} jobs/s, delay {delay}, CPU {row.cpu_ms_per_job} ms/job, failed {row.failed}"
