"""`dreamery run flower`: it needs Redis and a password of its own, and neither the database nor any other secret."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.platform import clean_env, eventually, free_port

PASSWORD = "a-password-of-its-own-for-flower"
KEY = "sk-dreamery-a-key-that-opens-everything"


@contextmanager
def running_flower(folder: Path, redis_url: str, **env: str) -> Iterator[tuple[str, Path]]:
    """Run Flower; yields its URL and its log."""
    port, log = free_port(), folder / "flower.log"
    command = [sys.executable, "-P", "-m", "api.cli.main", "run", "flower", "--port", str(port)]
    settings = {"DREAMERY_ENV": "production", "DREAMERY_REDIS_URL": redis_url, **env}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=folder, env=clean_env(**settings), stdout=output, stderr=output) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            eventually(lambda: process.poll() is not None or answers(url), what="Flower answers")
            assert process.poll() is None, log.read_text()
            yield url, log
        finally:
            process.kill()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthcheck", trust_env=False, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def status(url: str, password: str) -> int:
    return httpx.get(f"{url}/workers", auth=("admin", password), trust_env=False, timeout=20).status_code


def test_flower_has_its_own_password_and_no_other_secret(tmp_path: Path, redis_url: str) -> None:
    with running_flower(tmp_path, redis_url, DREAMERY_FLOWER_PASSWORD=PASSWORD) as (url, log):
        assert status(url, PASSWORD) == 200
        assert status(url, KEY) == 401
        assert PASSWORD not in log.read_text()


def test_admin_key_still_works_with_a_warning(tmp_path: Path, redis_url: str) -> None:
    with running_flower(tmp_path, redis_url, DREAMERY_ADMIN_KEY=KEY) as (url, log):
        assert status(url, KEY) == 200
        text = log.read_text()
    assert "Set DREAMERY_FLOWER_PASSWORD" in text
    assert KEY not in text


def test_own_password_wins_over_the_admin_key(tmp_path: Path, redis_url: str) -> None:
    env = {"DREAMERY_ADMIN_KEY": KEY, "DREAMERY_FLOWER_PASSWORD": PASSWORD}
    with running_flower(tmp_path, redis_url, **env) as (url, log):
        assert (status(url, PASSWORD), status(url, KEY)) == (200, 401)
        assert "Warning" not in log.read_text()


def test_flower_without_a_password_names_the_setting(tmp_path: Path, redis_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "api.cli.main", "run", "flower", "--port", str(free_port())],
        cwd=tmp_path, env=clean_env(DREAMERY_REDIS_URL=redis_url), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Flower needs a password: set DREAMERY_FLOWER_PASSWORD." in done.stderr
    assert "Traceback" not in done.stderr


def test_misspelled_password_is_reported(tmp_path: Path, redis_url: str) -> None:
    env = {"DREAMERY_FLOWER_PASWORD": PASSWORD, "DREAMERY_ADMIN_KEY": KEY}
    with running_flower(tmp_path, redis_url, **env) as (_, log):
        assert "did you mean DREAMERY_FLOWER_PASSWORD?" in log.read_text()
