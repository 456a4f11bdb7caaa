"""Commands for accounts with keys, against a server: add, list, set, reopen, prove."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from api.app import create_app
from api.cli.main import app as cli
from tests.support.engine import Engine
from tests.support.servers.http_servers import running_app
from worker.db.engine import transaction
from worker.db.jobs.queries import database_check


@pytest.fixture
def run(engine: Engine, worker: Callable[..., None]) -> Iterator[Callable[..., Result]]:
    """Run a command in this process."""
    del worker  # it answers the checks
    with running_app(create_app(), lifespan="on") as url:
        engine.sql("DELETE FROM accounts")  # the demo accounts of the pool
        env = {"DREAMERY_URL": url, "DREAMERY_ADMIN_KEY": engine.env["DREAMERY_ADMIN_KEY"], "COLUMNS": "200"}

        def invoke(*words: str, stdin: str | None = None) -> Result:
            return CliRunner().invoke(cli, ["accounts", *words], input=stdin, env=env)

        yield invoke


def parsed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_key_is_added_changed_and_removed(engine: Engine, run: Callable[..., Result]) -> None:
    words = ("--provider", "ark", "--region", "sandbox", "--label", "studio", "--limit-group", "acme")
    account = parsed(run("add", "ark-one.1", *words, "--model-id", "seedance-2.0=ep-1", "--json"))
    assert (account["provider"], account["label"], account["limit_group"]) == ("ark", "studio", "acme")
    assert account["model_ids"] == {"seedance-2.0": "ep-1"}
    assert account["check"]["live"] is True
    changed = parsed(run("set", account["id"], "--model-id", "none", "--limit-group", "none", "--json"))
    assert (changed["model_ids"], changed["limit_group"]) == ({}, None)
    priced = parsed(run("set", account["id"], "--prices", '{"*": {"factor": 0.5}}', "--json"))
    assert priced["prices"] == {"*": {"factor": 0.5}}
    rests = '{"seedance-2.0": {"until": "Infinity", "code": "ModelNotOpen", "at": 1}}'
    engine.sql(f"UPDATE accounts SET model_rests = '{rests}'")
    assert "seedance-2.0 (ModelNotOpen)" in run("list").output
    assert parsed(run("reopen", account["id"], "--model", "seedance-2.0", "--json"))["model_rests"] == []
    assert parsed(run("login", account["id"], "-", "--json", stdin="ark-two.1"))["check"]["live"] is True
    assert parsed(run("disable", account["id"], "--json"))["state"] == "paused"
    assert parsed(run("remove", account["id"], "--json"))["state"] == "retired"


def test_wrong_use_is_said(run: Callable[..., Result]) -> None:
    assert run("add", "k", "--provider", "ark", "--region", "sandbox", "--model-id", "seedance-2.0").exit_code == 2
    assert "needs a region" in str(run("add", "k", "--provider", "ark").exception)
    plan = run(
        "add", "k", "--provider", "ark", "--region", "https://ark.cn-beijing.volces.com/api/plan/v3", "--no-check"
    )
    assert plan.exit_code == 0
    assert "subscription plans" in plan.stderr


def test_proof_asks_before_it_spends(run: Callable[..., Result]) -> None:
    parsed(run("add", "ark-prove.1", "--provider", "ark", "--region", "sandbox", "--label", "studio", "--json"))
    free = run("prove", "studio", "--only", "list", "--only", "models")
    assert free.exit_code == 0
    assert "Go on?" not in free.output
    declined = run("prove", "studio", "--only", "list", "--only", "image", stdin="n\n")
    assert "at most 0.02 USD" in declined.output
    assert "skipped: it costs money" in declined.output
    report = parsed(run("prove", "studio", "--only", "image", "--yes", "--json"))
    assert (report["most_spent"], report["currency"], report["differing"]) == (18, "USD", 0)
    poor = parsed(run("prove", "studio", "--only", "image", "--yes", "--max-cost", "0.01", "--json"))
    assert poor["most_spent"] == 0
    assert "more than is left" in poor["steps"][0]["findings"][0]["text"]
    assert run("prove", "nobody").exit_code == 1
    assert run("prove", "studio", "--only", "everything").exit_code == 2


def test_doctor_names_closed_models(engine: Engine, run: Callable[..., Result]) -> None:
    parsed(run("add", "ark-one.1", "--provider", "ark", "--region", "sandbox", "--label", "studio", "--json"))
    rests = '{"seedance-2.0": {"until": "Infinity", "code": "ModelNotOpen"}, "seedance-2.5": {"until": 99999999999}}'
    engine.sql(f"UPDATE accounts SET model_rests = '{rests}'")
    with transaction() as tx:
        assert database_check(tx)["closed_models"] == ["seedance-2.0 on studio (ModelNotOpen)"]
    output = CliRunner().invoke(cli, ["doctor", "--json"]).output
    assert "closed by upstream: seedance-2.0 on studio (ModelNotOpen)" in output
