"""A clock that a test moves, for some modules only.

The event loop and the watchdog of the test process go on with the real clock: a loop whose clock jumps back sleeps for
hours, and its watchdog would end the process.
"""

import time
from types import ModuleType, SimpleNamespace

import pytest


def use_clock(monkeypatch: pytest.MonkeyPatch, now: list[float], *modules: ModuleType) -> None:
    """Let `time.monotonic()` in these modules return `now[0]`."""
    real = {name: getattr(time, name) for name in ("time", "strftime", "gmtime")}
    for module in modules:
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0], **real))
