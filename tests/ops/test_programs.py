"""The harness itself: what is there is found, what is missing skips with the reason."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ops import debian_packages


def test_a_missing_program_skips_with_its_name(program: Callable[[str], Path]) -> None:
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed"):
        program("no-such-program")


def test_an_installed_program_is_found(program: Callable[[str], Path]) -> None:
    assert program("sh").is_file()


def test_without_root_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian_packages.os, "geteuid", lambda: 1000)
    assert debian_packages.install(["nginx"]) == "installing them needs root and apt-get"
