"""Distributes tests over processes: files that share a platform run in one process, so that the platform starts once.

A platform takes seconds of CPU time to start and some CPU time while it runs. The longest files run first, then groups
with a shared platform, then slow files, so that the short files at the end keep every process busy.
"""

from functools import cache
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from tests.support.platform import ROOT

SHARED_PLATFORMS = ("api_platform", "multi_region_platform", "console_platform")
_LONGEST = (
    "tests/e2e/test_up.py",
    "tests/e2e/outages/test_crash.py",
    "tests/e2e/outages/test_operations.py",
    "tests/ops/test_redis_sentinel.py",
)
_SLOW = ("tests/e2e/", "tests/browser/", "tests/integration/worker/test_start_checks.py")
# Folders whose files share a platform, as one folder. The others need one that nobody else changes, or are long enough.
_API = "tests/integration/api"
_JOINED = {f"{_API}/{name}": f"{_API}/chat" for name in ("images", "videos")}
_JOINED |= {f"{_API}/{name}": f"{_API}/jobs" for name in ("auth", "console", "http")}
_JOINED |= {f"{_API}/accounts": f"{_API}/admin"}


class SharedPlatformPlugin:
    """Pytest plugin: orders the tests, groups them by process, and stops shared platforms."""

    def __init__(self) -> None:
        self._platforms: list[tuple[pytest.FixtureDef[Any], pytest.FixtureRequest]] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Order: the longest files, shared platforms, slow files, the rest. Stable within each, group by group."""
        places: dict[str, int] = {}  # of the groups, so that one process starts each platform once
        for item in items:
            places.setdefault(_group(_path(item)), len(places))
        items.sort(key=lambda item: (_rank(item), places[_group(_path(item))]))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> "PlatformScheduling | None":
        """Replace the scheduler of `--dist loadfile`; other modes are left to xdist."""
        return PlatformScheduling(config, log) if config.getoption("dist") == "loadfile" else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
        """Record the start of a shared platform."""
        if fixturedef.argname in SHARED_PLATFORMS:
            self._platforms.append((fixturedef, request))

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """Stop the platforms after the last test of their group instead of at the end of the session."""
        if nextitem is None or _group(_path(nextitem)) != _group(_path(item)):
            while self._platforms:
                fixture, request = self._platforms.pop()
                fixture.finish(request)  # pytest starts it again for the next test that needs it


class PlatformScheduling(LoadFileScheduling):
    """`--dist loadfile` with groups of files, distributed in the order of the tests."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return _group(super()._split_scope(nodeid))


def _path(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _rank(item: pytest.Item) -> int:
    path = _path(item)
    if path in _LONGEST:
        return 0
    return 1 if _group(path) != path else 2 if path.startswith(_SLOW) else 3


@cache
def _group(path: str) -> str:
    """Return the name of the group that runs in one process with this file."""
    text = (ROOT / path).read_text()
    folder = path.rpartition("/")[0]
    tier = _JOINED.get(folder, folder)
    return next((f"{name} of {tier}" for name in SHARED_PLATFORMS if name in text), path)
