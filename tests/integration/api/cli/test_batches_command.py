"""`dreamery batches add` of a user whose budget is too small: it says why, and nothing is left behind."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from api.app import create_app
from api.cli.main import app as cli
from tests.support.engine import Engine
from tests.support.servers.http_servers import running_app

LINES = [
    {"custom_id": f"l{n}", "method": "POST", "url": "/v1/images/generations", "body": {"prompt": "a boat", "n": 1}}
    for n in range(3)
]


@pytest.fixture
def url(engine: Engine) -> Iterator[str]:
    with running_app(create_app(), lifespan="on") as url:
        yield url


@pytest.fixture
def admin(engine: Engine, url: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {engine.env['DREAMERY_ADMIN_KEY']}"}
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture
def run(url: str, admin: httpx.Client) -> Callable[..., Result]:
    """Run a command with a key that may start two jobs a day."""
    assert admin.post("/admin/v1/users", json={"name": "anna"}).status_code == 201
    key = admin.post("/admin/v1/keys", json={"user": "anna", "limits": {"jobs_per_day": 2}}).json()["key"]

    def invoke(*words: str, answer: str | None = None) -> Result:
        env = {"DREAMERY_URL": url, "DREAMERY_ADMIN_KEY": key, "COLUMNS": "200"}
        return CliRunner().invoke(cli, list(words), env=env, input=answer)

    return invoke


def write_lines(folder: Path, count: int) -> str:
    file = folder / "lines.jsonl"
    file.write_text("\n".join(map(json.dumps, LINES[:count])))
    return str(file)


def counts(engine: Engine) -> tuple[int, int, int]:
    """Numbers of jobs, batches and files."""
    [row] = engine.sql(
        """SELECT (SELECT count(*) FROM jobs) j, (SELECT count(*) FROM batches) b,
               (SELECT count(*) FROM batch_files WHERE removed_at IS NULL) f"""
    )
    return row.j, row.b, row.f


def test_batch_over_budget_says_why_and_leaves_nothing(
    engine: Engine, run: Callable[..., Result], tmp_path: Path
) -> None:
    for words in ((write_lines(tmp_path, 3),), ("--prompt", "a {red|green|blue} boat", "-n", "1")):
        refused = run("batches", "add", *words, "--yes")
        assert refused.exit_code == 1
        for part in (
            "'jobs per day' of this API key is reached: 0 of 2 used; this request needs 3 more.",
            "It resets at ",
            "ask an administrator for a higher limit",
        ):
            assert part in refused.output
        assert str(refused.exception) == "The batch has 1 error, and nothing of it was accepted."
        assert counts(engine) == (0, 0, 0)


def test_file_of_a_batch_that_is_not_made_is_removed(
    engine: Engine, run: Callable[..., Result], tmp_path: Path
) -> None:
    file = write_lines(tmp_path, 2)
    assert run("batches", "add", file, "--dry-run").exit_code == 0
    assert run("batches", "add", file, answer="n\n").exit_code == 0
    assert counts(engine) == (0, 0, 0)
    assert run("batches", "add", file, answer="y\n").exit_code == 0
    assert counts(engine) == (2, 1, 1)
