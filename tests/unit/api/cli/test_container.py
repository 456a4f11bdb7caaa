"""`dreamery up --container`: the port of the host, the key that is shown once, and leaving root."""

import os
from pathlib import Path

import pytest

from api.cli.operator import container
from worker.local.platform_settings import PlatformSettings, read_platform_settings
from worker.local.processes import StartError


@pytest.fixture(scope="module")
def settings() -> PlatformSettings:
    return read_platform_settings(throwaway=True)


def test_port_of_the_host_is_used(settings: PlatformSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "10000")
    assert container.port_of_host(settings) == 10000
    monkeypatch.setitem(settings.values, "api_port", "8000")
    assert container.port_of_host(settings) is None, "DREAMERY_API_PORT wins"


@pytest.mark.parametrize("text", ["0", "65536", "80a", "-1"])
def test_invalid_port_is_named(settings: PlatformSettings, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PORT", text)
    with pytest.raises(StartError, match=f"PORT={text} is not a port"):
        container.port_of_host(settings)


def test_key_is_shown_until_it_was_printed(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    assert not container.key_was_shown(tmp_path)
    container.remember_shown_key(tmp_path)
    assert container.key_was_shown(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_becomes_the_user_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "_USER", "nobody")
    tmp_path.chmod(0o755)
    empty, foreign = tmp_path / "empty", tmp_path / "foreign"
    (empty / "lost+found").mkdir(parents=True)
    foreign.mkdir()
    (foreign / "file").touch()
    # In a child process: there is no way back.
    results = []
    for folder in (empty, foreign):
        child = os.fork()
        if child == 0:
            try:
                container.leave_root(folder)
                os._exit(0 if os.geteuid() != 0 and os.getgroups() == [] else 2)
            except StartError:
                os._exit(1)
            finally:
                os._exit(3)
        results.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert results == [0, 1]
    assert empty.stat().st_uid != 0
    assert foreign.stat().st_uid == 0
