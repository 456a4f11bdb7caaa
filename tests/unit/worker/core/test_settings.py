"""Settings: former names still work, and the present name wins."""

from pathlib import Path

import pytest

from worker.core.settings import FORMER_NAMES, Settings


@pytest.mark.parametrize(("old", "new"), FORMER_NAMES.items())
def test_former_name_sets_the_present_setting(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    monkeypatch.delenv(f"DREAMERY_{new.upper()}", raising=False)
    default = Settings.model_fields[new].default
    changed = (not default) if isinstance(default, bool) else default + 7
    monkeypatch.setenv(f"DREAMERY_{old.upper()}", str(changed))
    settings = Settings(_env_file=None)
    assert getattr(settings, new) == changed
    assert new in settings.model_fields_set
    assert old not in Settings.model_fields


def test_present_name_wins_over_former_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMERY_DEAF_SECONDS", "7")
    monkeypatch.setenv("DREAMERY_WORKER_HEARTBEAT_TIMEOUT_SECONDS", "9")
    assert Settings(_env_file=None).worker_heartbeat_timeout_seconds == 9


def test_former_name_in_the_environment_wins_over_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("DREAMERY_WORKER_HEARTBEAT_TIMEOUT_SECONDS=9\nDREAMERY_STOP_SECONDS=11\n")
    monkeypatch.setenv("DREAMERY_DEAF_SECONDS", "7")
    settings = Settings(_env_file=env_file)
    assert (settings.worker_heartbeat_timeout_seconds, settings.shutdown_grace_seconds) == (7, 11)
