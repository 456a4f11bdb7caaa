"""Garbage is collected in each process after its start, and imported modules are not looked at again."""

import subprocess
import sys

import pytest

_REPORT = "import gc; print(gc.isenabled(), gc.get_freeze_count() > 100_000)"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import worker.core.gc_tuning", "False False"),
        ("import worker.celery_tasks", "True True"),
        ("import api.app, worker.core.gc_tuning; worker.core.gc_tuning.keep_imports()", "True True"),
    ],
    ids=["during the start", "worker", "api"],
)
def test_garbage_is_collected_after_the_start(code: str, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{_REPORT}"], check=True, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == expected
