"""Plants faults in a copy of the tree, one at a time, and tells which ones the tests notice: `make mutants`.

Each fault names the tests that should notice it, so a run takes minutes and not hours. First those tests run without a
fault: a test that fails anyway notices nothing.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.mutants.faults_file import ROOT, Fault, read_faults

_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "data", "out", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "build"
)
_TESTS_FAILED = 1  # exit code of pytest
_TIMED_OUT = 124
_SHARE_TO_NOTICE = 0.95


def main() -> int:
    """Run the faults; returns 1 if fewer than 95 % of them were noticed, or if a test fails without a fault."""
    parser = argparse.ArgumentParser(prog="make mutants ARGS=...", description=__doc__)
    parser.add_argument("--only", default="", help="faults whose area or name contains one of these words, by comma")
    parser.add_argument("--seconds", type=float, default=300, help="longest time of one run of tests")
    parser.add_argument("--no-baseline", action="store_true", help="do not run the tests without a fault first")
    args = parser.parse_args()
    words = [word for word in args.only.split(",") if word]
    faults = [
        f for f in read_faults() if not words or any(word in (f.area, f.name) or word in f.name for word in words)
    ]
    with tempfile.TemporaryDirectory(prefix="dreamery-mutants-", ignore_cleanup_errors=True) as name:
        tree = Path(name) / "tree"
        shutil.copytree(ROOT, tree, ignore=_LEFT_OUT, symlinks=True)
        Path(name).chmod(0o755)
        (tree / ".venv").symlink_to(ROOT / ".venv")
        if not args.no_baseline and (broken := _failing_without_fault(tree, faults, args.seconds)):
            print("These tests fail without a fault:", *broken, sep="\n  ")
            return 1
        outcomes = [_try_one(tree, fault, args.seconds) for fault in faults]
    return _report(faults, outcomes)


def _failing_without_fault(tree: Path, faults: list[Fault], seconds: float) -> list[str]:
    runs = dict.fromkeys(fault.tests for fault in faults)
    return [" ".join(tests) for tests in runs if _run_tests(tree, tests, seconds)[0] != 0]


def _try_one(tree: Path, fault: Fault, seconds: float) -> str:
    started = time.monotonic()
    former = fault.apply(tree)
    try:
        code, test = _run_tests(tree, fault.tests, seconds)
    finally:
        (tree / fault.file).write_text(former)
    outcome = {0: "survived", _TESTS_FAILED: "noticed", _TIMED_OUT: "noticed (timeout)"}.get(code, f"error {code}")
    print(f"{outcome:18} {fault.area:10} {fault.name} ({time.monotonic() - started:.0f} s) {test}", flush=True)
    return outcome


def _run_tests(tree: Path, tests: tuple[str, ...], seconds: float) -> tuple[int, str]:
    """Return the exit code of pytest and the test that failed. The copy comes first on the path, before the installed tree."""
    command = (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", *tests)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPATH"] = str(tree)
    try:
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return _TIMED_OUT, ""
    failed = [
        line.split()[1] for line in done.stdout.splitlines() if line.startswith(("FAILED tests/", "ERROR tests/"))
    ]
    return done.returncode, failed[0] if failed else ""


def _report(faults: list[Fault], outcomes: list[str]) -> int:
    planted, noticed = Counter(f.area for f in faults), Counter[str]()
    for fault, outcome in zip(faults, outcomes, strict=True):
        noticed[fault.area] += outcome.startswith("noticed")
    print("\n| area | planted | noticed |\n|---|---|---|")
    for area, count in planted.items():
        print(f"| {area} | {count} | {noticed[area]} |")
    share = noticed.total() / max(len(faults), 1)
    print(f"| all | {len(faults)} | {noticed.total()} ({share:.0%}) |")
    return 0 if share >= _SHARE_TO_NOTICE else 1


if __name__ == "__main__":
    sys.exit(main())
