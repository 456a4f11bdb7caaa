"""Which tests run in one process: those of a file, and of files that share a platform, so that it starts once.

A platform costs seconds of a processor to start and a share of one for as long as it runs. Who shares comes first, then
what takes long, so that the short files at the end keep every process busy to the last.
"""

from functools import cache
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from tests.support.platform import ROOT

_SHARED = ("api_platform", "wide_platform")
_LONG = ("tests/e2e/", "tests/browser/")


class Sharing:
    """A plugin of pytest: the order of the tests, who runs them, and the end of what they shared."""

    def __init__(self) -> None:
        self._started: list[tuple[pytest.FixtureDef[Any], pytest.FixtureRequest]] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Who shares, what is long, the rest; within each as they were."""
        items.sort(key=_rank)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> "ByPlatform | None":
        """In place of `--dist loadfile`; another wish is left to xdist."""
        return ByPlatform(config, log) if config.getoption("dist") == "loadfile" else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
        """A platform that is shared starts."""
        if fixturedef.argname in _SHARED:
            self._started.append((fixturedef, request))

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """It ends after the last test of its group instead of with the session."""
        if nextitem is None or _group(_path(nextitem)) != _group(_path(item)):
            while self._started:
                fixture, request = self._started.pop()
                fixture.finish(request)  # pytest sets it up anew for whoever asks again


class ByPlatform(LoadFileScheduling):
    """`--dist loadfile` with groups of files, handed out in the order of the tests."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return _group(super()._split_scope(nodeid))


def _path(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _rank(item: pytest.Item) -> int:
    path = _path(item)
    return 0 if _group(path) != path else 1 if path.startswith(_LONG) else 2


@cache
def _group(path: str) -> str:
    """The name of what runs in one process with this file."""
    text = (ROOT / path).read_text()
    tier = path.rpartition("/")[0]
    return next((f"{name} of {tier}" for name in _SHARED if name in text), path)
