"""Which tests run in one process: those of a file, and of files that share a platform, so that it starts once.

A platform costs seconds of a processor to start and a share of one for as long as it runs. Who shares comes first, then
what takes long, so that the short files at the end keep every process busy to the last.
"""

from functools import cache

import pytest
from xdist.scheduler import LoadFileScheduling

from tests.platform import ROOT

_SHARED = ("api_platform", "wide_platform")
_LONG = ("tests/e2e/", "tests/browser/")


@cache
def _group(path: str) -> str:
    """The name of what runs in one process with this file."""
    text = (ROOT / path).read_text()
    tier = path.rpartition("/")[0]
    return next((f"{name} of {tier}" for name in _SHARED if name in text), path)


def in_order(items: list[pytest.Item]) -> None:
    """Sort collected tests: who shares, what is long, the rest; within each as they were."""

    def rank(item: pytest.Item) -> int:
        path = item.nodeid.partition("::")[0]
        return 0 if _group(path) != path else 1 if path.startswith(_LONG) else 2

    items.sort(key=rank)


class ByPlatform(LoadFileScheduling):
    """`--dist loadfile` with groups of files, handed out in the order of `in_order`."""

    def __init__(self, config: pytest.Config, log: object = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return _group(super()._split_scope(nodeid))
