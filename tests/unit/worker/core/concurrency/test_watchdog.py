"""The watchdog ends a process whose task, pool thread or event loop hangs, and no other."""

import os
import subprocess
import sys

import pytest

_SETTINGS = {"DREAMERY_CALL_TIMEOUT_SECONDS": "0.3", "DREAMERY_WATCHDOG_SECONDS": "1.2", "DREAMERY_LEASE_SECONDS": "5"}
_HEAD = """
import asyncio, time
from worker.core.concurrency import event_loop
from worker.core.concurrency.watchdog import watchdog
async def hang(): time.sleep(60)
async def wait(): await asyncio.sleep(4); return "waited"
"""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _HEAD + code],
        env={**os.environ, **_SETTINGS},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize(
    "code",
    [
        "with watchdog.watch('task'): time.sleep(60)",
        "event_loop.run(event_loop.in_thread(time.sleep, 60))",
        "with watchdog.watch('task'): event_loop.run(hang())",
    ],
    ids=["task", "pool thread", "event loop"],
)
def test_process_that_hangs_is_ended(code: str) -> None:
    assert run_python(code).returncode == 70


def test_thread_that_waits_for_the_loop_is_not_overdue() -> None:
    """What it waits for has a time limit of its own, and the loop goes on."""
    done = run_python("with watchdog.watch('task'): print(event_loop.run(wait()))")
    assert (done.returncode, done.stdout.strip()) == (0, "waited"), done.stderr
