"""`make soak`: a constant load for a while; memory, descriptors, threads, Redis keys and connections must stay flat.

The verdict is about the last two thirds of the time: a line is fitted to the samples, and what it rises by is compared
with the level and with the noise around the line.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.soak.load import ConstantLoad
from tests.soak.samples import Sampler, judge, table
from worker.local.supervisor import Platform, PlatformOptions

_SETTINGS = {
    "DREAMERY_REQUESTS_PER_MINUTE": "0",
    "DREAMERY_ACCOUNT_MAX_IMAGES": "4",
    "DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "600",
}


def main() -> int:
    """Run the load; returns 1 if something grows or a request failed."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="length of the run")
    parser.add_argument("--callers", type=int, default=8, help="callers that send one picture after the other")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two samples")
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    parser.add_argument("--json", action="store_true", help="print all samples as one JSON object")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dreamery-soak-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        options = PlatformOptions(
            data_dir=folder / "data", flower="never", sandbox="at_start", throwaway=True, workers=args.workers,
            sandbox_seconds=1.0, extra_env=_SETTINGS,
        )  # fmt: skip
        with Platform(options) as platform:
            load = ConstantLoad(platform, callers=args.callers)
            sampler = Sampler(platform)
            started, over = time.monotonic(), threading.Event()
            load.start()
            while (passed := time.monotonic() - started) < args.minutes * 60:
                over.wait(args.every)
                with contextlib.suppress(OSError):
                    sampler.sample(time.monotonic() - started)
                if int(passed) % 60 < args.every:
                    print(f"... {passed / 60:.0f} min, {load.done} results", file=sys.stderr, flush=True)
            load.stop()
    verdicts = judge(sampler.samples)
    if args.json:
        print(json.dumps({"results": load.done, "failed": load.failed, "samples": sampler.samples}, indent=1))
    else:
        minutes = args.minutes
        print(
            f"{load.done} results in {minutes:g} minutes, {len(load.failed)} failed\n\n{table(verdicts, minutes=minutes)}"
        )
    for failure in load.failed[:10]:
        print(failure, file=sys.stderr)
    return 1 if load.failed or any(verdict.grows for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
