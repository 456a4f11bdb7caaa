"""Commands and environment of the child processes, without starting them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.platform import clean_env
from worker.core.settings import get_settings
from worker.local import process_commands
from worker.local.data_dir import open_data_dir
from worker.local.processes import ChildSpec
from worker.local.running_instance import RunningPlatform, find_running_platform, write_running_platform
from worker.local.supervisor import Platform, PlatformOptions


@pytest.fixture(autouse=True)
def _settings_of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def specs(platform: Platform) -> list[ChildSpec]:
    programs = {
        "api": process_commands.api(platform.host, platform.port, patience_seconds=5),
        "flower": process_commands.flower("127.0.0.1", 5555, fd=3),
        "sandbox": process_commands.sandbox(9100, 4, platform.options, platform.data_dir),
    }
    return [*(platform._python(name, *program) for name, program in programs.items()), *platform._worker_specs()]


def test_secrets_are_not_on_command_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMERY_ADMIN_KEY", "sk-dreamery-hush")
    monkeypatch.setenv("DREAMERY_MASTER_KEY", "master-hush")
    platform = Platform(PlatformOptions(data_dir=tmp_path / "data"))
    data = open_data_dir(platform.data_dir)
    platform._read_keys(data)
    data.close()
    assert (platform.admin_key, platform.master_key) == ("sk-dreamery-hush", "master-hush")
    for spec in specs(platform):
        assert "hush" not in " ".join(spec.command)
        assert spec.env["DREAMERY_ADMIN_KEY"] == "sk-dreamery-hush"
        assert spec.env["FLOWER_BASIC_AUTH"] == "admin:sk-dreamery-hush"


def test_children_get_the_settings_of_env_file_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text(
        "DREAMERY_POLL_MAX_SECONDS=7\nDREAMERY_FETCH_ALLOW=files.test\nPOSTGRES_PASSWORD=x\n"
    )
    monkeypatch.setenv("DREAMERY_SANDBOX_URL", "http://127.0.0.1:9999")
    monkeypatch.setenv("DREAMERY_LOG_LEVEL", "warning")
    platform = Platform(
        PlatformOptions(data_dir=tmp_path / "data", port=9000, extra_env={"DREAMERY_TICK_SECONDS": "1"})
    )
    env = specs(platform)[0].env
    assert env["DREAMERY_POLL_MAX_SECONDS"] == "7.0"
    assert env["DREAMERY_LOG_LEVEL"] == "warning"
    assert env["DREAMERY_FETCH_ALLOW"] == "files.test,127.0.0.1:9999"
    assert env["DREAMERY_TICK_SECONDS"] == "1"
    assert env["DREAMERY_SESSION_TOKENS"] == "true"
    assert env["DREAMERY_DATA_DIR"] == str(tmp_path / "data")
    assert (env["DREAMERY_API_PORT"], platform.url) == ("9000", "http://127.0.0.1:9000")


def test_configured_session_tokens_setting_overrides_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMERY_SESSION_TOKENS", "off")
    assert specs(Platform(PlatformOptions()))[0].env["DREAMERY_SESSION_TOKENS"] == "false"


def test_throwaway_platform_ignores_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMERY_DATABASE_URL", "postgresql://production/precious")
    monkeypatch.setenv("DREAMERY_API_PORT", "8000")
    monkeypatch.setenv("DREAMERY_UPSTREAM_ORIGIN", "http://elsewhere")
    platform = Platform(PlatformOptions(data_dir=tmp_path / "data", throwaway=True))
    env = specs(platform)[0].env
    assert "precious" not in " ".join(env.values())
    assert "DREAMERY_UPSTREAM_ORIGIN" not in env
    assert platform.port != 8000


def option(spec: ChildSpec, name: str) -> str:
    return spec.command[spec.command.index(name) + 1]


def test_one_worker_runs_all_queues_and_the_scheduler(tmp_path: Path) -> None:
    first, second = Platform(PlatformOptions(data_dir=tmp_path / "data", workers=2, profile="standard"))._worker_specs()
    assert (first.name, second.name) == ("worker-1", "worker-2")
    for spec in (first, second):
        assert set(option(spec, "-Q").split(",")) == {"fast", "bulk", "outbox", "talk"}
        assert option(spec, "-c") == "48", "32 tasks and 16 conversations"
    assert first.env["DREAMERY_WORKER_WITH_SCHEDULER"] == "true"
    assert "DREAMERY_WORKER_WITH_SCHEDULER" not in second.env


def test_separate_roles_have_processes_of_their_own(tmp_path: Path) -> None:
    specs = {
        spec.name: spec
        for spec in Platform(PlatformOptions(data_dir=tmp_path / "data", separate_roles=True))._worker_specs()
    }
    assert set(specs) == {"worker-1", "talker", "scheduler"}
    assert option(specs["talker"], "-Q") == "talk"
    assert "talk" not in option(specs["worker-1"], "-Q")
    assert not [spec for spec in specs.values() if "DREAMERY_WORKER_WITH_SCHEDULER" in spec.env]


def test_profile_changes_defaults_but_no_explicit_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMERY_DB_POOL_SIZE", "9")
    platform = Platform(PlatformOptions(data_dir=tmp_path / "data", profile="small"))
    [worker] = platform._worker_specs()
    assert option(worker, "-c") == "12", "8 tasks and 4 conversations"
    assert (worker.env["DREAMERY_WORKER_CONCURRENCY"], worker.env["DREAMERY_DB_POOL_SIZE"]) == ("8", "9")
    assert platform.profile == "small"
    monkeypatch.setenv("DREAMERY_PROFILE", "small")
    get_settings.cache_clear()
    assert Platform(PlatformOptions()).profile == "small"
    assert Platform(PlatformOptions(profile="standard")).profile == "standard"


def test_supervisor_does_not_import_the_libraries_of_its_children() -> None:
    code = "import sys, api.cli.operator.run_platform as _; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], env=clean_env(), capture_output=True, text=True, check=True)
    heavy = {"pydantic", "celery", "redis", "psycopg", "sqlalchemy", "typer", "rich", "structlog", "asyncio"}
    assert not heavy & set(loaded.stdout.split())


def test_children_do_not_import_from_the_users_directory(tmp_path: Path) -> None:
    for spec in specs(Platform(PlatformOptions(data_dir=tmp_path / "data"))):
        assert spec.command[1] == "-P"
        assert spec.cwd == tmp_path / "data"
        assert spec.env["PYTHONPATH"].split(":")[0] == str(Path(__file__).resolve().parents[4])


def test_url_is_loopback_when_listening_on_all_addresses() -> None:
    assert Platform(PlatformOptions(host="0.0.0.0", port=81)).url == "http://127.0.0.1:81"


def test_running_platform_is_found_only_while_the_folder_is_locked(tmp_path: Path) -> None:
    data = open_data_dir(tmp_path / "data")
    platform = RunningPlatform(url="http://127.0.0.1:81", database_url="postgresql://x", redis_url="redis://x")
    write_running_platform(data.path, platform)
    assert find_running_platform(data.path) == platform
    assert (data.path / "running.json").stat().st_mode & 0o077 == 0
    data.close()
    assert find_running_platform(data.path) is None, "left by a kill -9"
    assert find_running_platform(tmp_path / "nowhere") is None
