"""Commands against a server: short ids, secrets shown once, failed jobs, models, and the key that they use."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from api.app import create_app
from api.cli.main import app as cli
from api.cli.operator import doctor
from tests.support.engine import Engine
from tests.support.servers.http_servers import running_app
from worker.core.settings import get_settings

Run = Callable[..., Result]


@pytest.fixture
def run(engine: Engine) -> Iterator[Run]:
    """Run a command in this process. `key=None` = the terminal has none."""
    with running_app(create_app(), lifespan="on") as url:
        admin_key = engine.env["DREAMERY_ADMIN_KEY"]

        def invoke(*words: str, key: str | None = admin_key) -> Result:
            env = {"DREAMERY_URL": url, "DREAMERY_ADMIN_KEY": key, "COLUMNS": "200"}
            return CliRunner().invoke(cli, list(words), env=env)

        yield invoke


def parsed(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def text_of(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(result: Result) -> str:
    assert result.exit_code == 1
    return str(result.exception)


def test_ids_of_tables_are_short_and_work_in_commands(run: Run) -> None:
    user = str(parsed(run("users", "add", "decade", "--json"))["id"])
    key = str(parsed(run("keys", "add", "decade", "--json"))["id"])
    account = str(parsed(run("accounts", "add", "short:sandbox", "--label", "studio", "--no-check", "--json"))["id"])
    for command, full in (("users", user), ("keys", key), ("accounts", account)):
        table = text_of(run(command, "list"))
        assert full[-8:] in table
        assert full not in table
        assert full in text_of(run(command, "show", full[-8:]))
    assert user in text_of(run("users", "show", "decade")), "a name that looks like the end of an id"
    assert account in text_of(run("accounts", "show", "studio"))
    assert "No key has the id '0123456789'" in refusal(run("keys", "show", "0123456789"))
    assert "dreamery accounts list" in refusal(run("accounts", "disable", "no-such-label"))


def test_jobs_are_found_by_the_end_of_their_id(run: Run, engine: Engine) -> None:
    engine.add_account()
    job = str(engine.add_job())
    full = f"job_{job.replace('-', '')}"
    assert full in text_of(run("jobs", "show", full[-8:]))
    assert full[-8:] in text_of(run("jobs", "list", "--all"))
    assert parsed(run("jobs", "cancel", full[-8:], "--json"))["id"] == full
    assert "The newest 1000 were searched" in refusal(run("jobs", "show", "0123456789"))


def test_a_secret_is_shown_last_and_said_to_be_shown_once(run: Run) -> None:
    run("users", "add", "alice")
    *_, title, key = text_of(run("keys", "add", "alice")).splitlines()
    assert (title, key[:12]) == ("Key, shown only this once:", "sk-dreamery-")
    listed = json.loads(run("keys", "list", "--user", "alice", "--json").stdout)["data"]
    *_, title, rotated = text_of(run("keys", "rotate", listed[0]["id"])).splitlines()
    assert (title, rotated[:12]) == ("Key, shown only this once:", "sk-dreamery-")
    *_, title, link = text_of(run("users", "invite", "alice")).splitlines()
    assert (title, "/console/invitation#" in link) == ("Link, shown only this once:", True)


def test_models_are_listed_and_shown(run: Run) -> None:
    table = text_of(run("models"))
    assert "jimeng-4.0" in table
    assert "jimeng-video-3.0" in table
    videos = text_of(run("models", "--kind", "video"))
    assert "jimeng-video-3.0" in videos
    assert "jimeng-4.0" not in videos.split()
    listed = parsed(run("models", "--json"))["data"]
    assert isinstance(listed, list)
    assert all(each["alias_of"] is None for each in listed)
    assert len(text_of(run("models", "--all")).splitlines()) > len(table.splitlines())
    shown = text_of(run("models", "jimeng-4.0"))
    assert "takes" in shown
    assert "ratios" in shown
    assert run("models", "--kind", "song").exit_code == 2
    assert "`dreamery models` lists" in refusal(run("models", "jimeng-99"))


def test_commands_without_a_key_say_which_one_they_use(
    run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.configure(SESSION_TOKENS="on", ADMIN_KEY="", DATA_DIR=str(Path.cwd() / "data"))
    monkeypatch.delenv("DREAMERY_ADMIN_KEY", raising=False)
    get_settings.cache_clear()
    listed = run("jobs", "list", key=None)
    assert "Using the key of the sandbox" in listed.stderr
    assert "--key or DREAMERY_ADMIN_KEY" in listed.stderr
    refused = refusal(run("users", "add", "alice", key=None))
    assert "It used the key of the sandbox" in refused
    wrong = refusal(run("users", "list", key="sk-dreamery-wrong"))
    assert wrong == "Invalid API key. Give another key with --key or DREAMERY_ADMIN_KEY."


def test_doctor_leaves_no_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAMERY_DATA_DIR", "data")
    get_settings.cache_clear()
    findings = doctor.run_checks()
    assert any(each.check == "storage" and each.ok for each in findings)
    assert list(tmp_path.rglob("*")) == []
    get_settings.cache_clear()


def test_list_of_jobs_shows_the_last_message_of_a_chat(run: Run, engine: Engine) -> None:
    said = (("user", "my name is Bo"), ("assistant", "Hello"), ("user", "draw it"))
    turns = [{"role": role, "text": words} for role, words in said]
    params = {"order": {"messages": turns}, "n": 0, "flags": {}, "asked_model": "agent", "images": []}
    engine.add_job(engine.add_account(), kind="chat", model="agent", params=params)
    assert "draw it" in text_of(run("jobs", "list", "--all"))
