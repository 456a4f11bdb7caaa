"""A third provider is a folder, a data file and one line: a toy one runs pictures and videos through a whole platform."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.third_provider.upstream import KEY, Upstream
from tests.support.platform import ROOT, CheckedPlatform, clean_env, eventually, start_platform
from tests.support.servers.http_servers import running_app
from worker.core.media.video import inspect_video

HERE = Path(__file__).parent
# The one line of registration.
LINE = '    "toy": "worker.providers.toy.provider",\n'


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the product with the toy provider added."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("api", "worker", "migrations"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", folder)
    toy = folder / "worker/providers/toy"
    toy.mkdir()
    (toy / "__init__.py").touch()
    shutil.copy(HERE / "provider.py", toy)
    shutil.copy(HERE / "toy.toml", folder / "worker/core/catalog/providers")
    registry = folder / "worker/providers/registry.py"
    before, first, after = registry.read_text("utf-8").partition('    "dreamina": ')
    registry.write_text(before + LINE + first + after, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """The toy upstream."""
    upstream = Upstream()
    with running_app(upstream.app()) as upstream.url:
        yield upstream


@pytest.fixture(scope="module")
def platform(tree: Path, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckedPlatform]:
    """A platform that runs the copy, with one account of the toy upstream."""
    env = {
        "PYTHONPATH": str(tree),
        "DREAMERY_TOY_ORIGIN": upstream.url,
        "DREAMERY_FETCH_ALLOW": upstream.url.removeprefix("http://"),
        "DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "6000",
    }
    with start_platform(tmp_path_factory.mktemp("data"), extra_env=env, sandbox="on_demand") as platform:
        body = {"provider": "toy", "region": "main", "tokens": KEY, "label": "toys"}
        with admin(platform) as client:
            added = client.post("/admin/v1/accounts", json=body)
        assert added.status_code == 201, added.text
        yield platform


def admin(platform: CheckedPlatform) -> httpx.Client:
    return httpx.Client(
        base_url=platform.url,
        headers={"Authorization": f"Bearer {platform.admin_key}"},
        timeout=60,
        trust_env=False,
    )


def test_provider_is_small() -> None:
    """Code, data and registration together."""
    added = [(HERE / name).read_text("utf-8") for name in ("provider.py", "toy.toml")]
    assert sum(text.count("\n") for text in (*added, LINE)) < 150


def test_provider_passes_the_type_checker(tree: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tree)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "-p", "worker.providers.toy"],
        cwd=tree, env={**clean_env(), "PYTHONPATH": str(tree)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_account_is_checked_and_its_models_are_listed(platform: CheckedPlatform) -> None:
    with admin(platform) as client:
        [account] = client.get("/admin/v1/accounts").json()["data"]
        assert (account["provider"], account["region"], account["label"]) == ("toy", "main", "toys")
        eventually(
            lambda: client.get("/admin/v1/accounts").json()["data"][0]["checked_at"], what="the account was checked"
        )
        assert client.get("/admin/v1/accounts").json()["data"][0]["state"] == "ok"
        models = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
        assert {"toy-image", "toy-video"} <= models.keys()
        assert models["toy-image"]["owned_by"] == "toy"
        wrong = {"provider": "toy", "region": "moon", "tokens": "another-key"}
        refused = client.post("/admin/v1/accounts", json=wrong)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "region")


def test_pictures_run_on_it(platform: CheckedPlatform, upstream: Upstream) -> None:
    with admin(platform) as client:
        body = {"model": "toy-image", "prompt": "a paper boat", "n": 2, "size": "512x512"}
        answer = client.post("/v1/images/generations", json=body)
        assert answer.status_code == 200, answer.text
        files = [client.get(image["url"]) for image in answer.json()["data"]]
        assert [file.headers["content-type"] for file in files] == ["image/png"] * 2
        job = client.get(f"/admin/v1/jobs/{answer.headers['x-job-id']}").json()
        assert (job["status"], job["provider"], job["account"]) == ("completed", "toy", "toys")
    [order] = [order for order in upstream.orders.values() if order["prompt"] == "a paper boat"]
    assert (order["count"], order["width"], order["height"]) == (2, 512, 512)


def test_video_runs_on_it(platform: CheckedPlatform, upstream: Upstream) -> None:
    with admin(platform) as client:
        body = {"model": "toy-video", "prompt": "waves", "duration": 2, "ratio": "1:1"}
        answer = client.post("/v1/videos/generations", json=body)
        assert answer.status_code == 200, answer.text
        file = client.get(answer.json()["data"][0]["url"])
        assert inspect_video(io.BytesIO(file.content)).milliseconds == pytest.approx(2000, abs=200)
    [order] = [order for order in upstream.orders.values() if order["kind"] == "video"]
    assert (order["seconds"], order["ratio"]) == (2, "1:1")


def test_refusal_reaches_the_caller_and_what_it_lacks_is_refused(platform: CheckedPlatform) -> None:
    with admin(platform) as client:
        refused = client.post("/v1/images/generations", json={"model": "toy-image", "prompt": "forbidden", "n": 1})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "content_policy_violation")
        frame = {"model": "toy-video", "prompt": "waves", "first_frame_image": "https://example.org/a.png"}
        assert client.post("/v1/videos/generations", json=frame).status_code == 400


def test_command_line_and_settings_know_it(tree: Path, platform: CheckedPlatform) -> None:
    def dreamery(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "api.cli.main", *arguments],
            cwd=tree, env={**clean_env(), "PYTHONPATH": str(tree)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    settings = json.loads(dreamery("doctor", "--settings", "--json"))["data"]
    assert "DREAMERY_TOY_ORIGIN" in {setting["name"] for setting in settings}
    listed = json.loads(
        dreamery("accounts", "list", "--json", "--url", platform.url, "--key", platform.admin_key)
    )["data"]  # fmt: skip
    assert [account["provider"] for account in listed] == ["toy"]
