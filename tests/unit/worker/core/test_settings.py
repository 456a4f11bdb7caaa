"""Settings: former names still work, and the present name wins."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from worker.core.catalog import provider_overrides
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


@pytest.mark.parametrize("name", ["DREAMERY_DREAMINA_APPVR", "DREAMERY_UPSTREAM_SIGN_VER"])
def test_constants_of_providers_come_from_the_environment_under_both_names(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "9.1.0")
    settings = Settings(_env_file=None)
    constants = provider_overrides.constants(None, settings.provider_constants, "dreamina")
    assert (constants["appvr"], constants["da_version"]) == ("9.1.0", "3.3.9")


def test_present_name_of_a_constant_wins_and_the_environment_wins_over_env_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("DREAMERY_DREAMINA_APPVR=9.9.9\nDREAMERY_UPSTREAM_WEB_VERSION=7.9.0\n")
    monkeypatch.setenv("DREAMERY_UPSTREAM_SIGN_VER", "9.1.0")
    monkeypatch.setenv("DREAMERY_UPSTREAM_DA_VERSION", "3.4.0")
    monkeypatch.setenv("DREAMERY_DREAMINA_DA_VERSION", "3.5.0")
    settings = Settings(_env_file=env_file)
    assert settings.provider_constants == {
        "dreamina_appvr": "9.1.0", "dreamina_da_version": "3.5.0", "dreamina_web_version": "7.9.0",
    }  # fmt: skip


def test_malformed_constant_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMERY_DREAMINA_APPVR", "9 1")
    with pytest.raises(ValidationError, match=r"must be a text such as '8\.4\.0'; got '9 1'"):
        Settings(_env_file=None)


def test_operators_file_wins_over_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text('[wire]\nappvr = "9.0.0"\n[providers.dreamina.wire]\nweb_version = "8.0.0"\n')
    given = {"dreamina_appvr": "1.0", "dreamina_da_version": "2.0"}
    constants = provider_overrides.constants(path, given, "dreamina")
    assert [constants[name] for name in ("appvr", "da_version", "web_version")] == ["9.0.0", "2.0", "8.0.0"]
