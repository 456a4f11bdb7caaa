"""Environments of real API clients: each client has its own pinned environment, created once and reused.

A client is a folder in `tests/clients/` with a lock file and scripts:

- Python: `requirements.in` (direct requirements), `requirements.lock` (all packages with hashes), `*.py`.
- Node: `package.json`, `package-lock.json`, `.npmrc` (its `omit-lockfile-registry-resolved` keeps hosts out of the lock),
  `*.mjs`.

`run("openai1", "check.py", platform, key, "pictures")` creates the environment if it does not exist, runs the script in
it with `DREAMERY_URL` and `DREAMERY_KEY` set, and fails the test with the output of the script unless it exits with 0.
Environments are stored in `.venv/clients/NAME-HASH`. The hash covers the lock and the interpreter, so a changed lock
creates a new environment and removes the old one. If an environment cannot be installed, the test fails: a client that
was not tested must not count as working.

To change a lock (needs uv, or npm):

    cd tests/clients/NAME
    uv pip compile --generate-hashes --no-annotate --no-header --python-version 3.11 requirements.in -o requirements.lock
    npm install --package-lock-only
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.platform import ROOT
from worker.local.supervisor import Platform

CLIENTS = ROOT / "tests" / "clients"
ENVIRONMENTS = ROOT / ".venv" / "clients"
INSTALL_SECONDS = 600
_READY = ".ready"


def run(client: str, script: str, platform: Platform, key: str, *arguments: str, seconds: float = 240) -> str:
    """Run a client's script against a platform and return its output. Fails the test unless it exits with 0."""
    return run_at(client, script, platform.url, key, *arguments, seconds=seconds)


def run_at(client: str, script: str, url: str, key: str, *arguments: str, seconds: float = 240) -> str:
    """Run a client's script against the server at `url` and return its output."""
    folder = ensure_environment(client)
    program = [str(folder / "bin" / "python"), str(CLIENTS / client / script)]
    if _is_node(client):
        # Node looks for packages next to the script.
        shutil.copy(CLIENTS / client / script, folder / script)
        program = [_find_program("node"), str(folder / script)]
    env = {**_plain_env(), "DREAMERY_URL": url, "DREAMERY_KEY": key}
    return _run([*program, *arguments], cwd=folder, env=env, seconds=seconds)


def ensure_environment(client: str) -> Path:
    """Create the client's environment if it does not exist and return its folder."""
    lock = CLIENTS / client / ("package-lock.json" if _is_node(client) else "requirements.lock")
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ENVIRONMENTS / f"{client}-{digest}"
    with _locked(client):
        if not (folder / _READY).exists():
            for old in ENVIRONMENTS.glob(f"{client}-*"):
                shutil.rmtree(old)
            (_create_node if _is_node(client) else _create_python)(client, folder)
            (folder / _READY).touch()
    return folder


def _is_node(client: str) -> bool:
    return (CLIENTS / client / "package.json").exists()


def _create_python(client: str, folder: Path) -> None:
    # Our own pip and no bytecode compilation: saves half a minute per environment.
    create = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    _run(create, cwd=ROOT, env=_plain_env(), seconds=INSTALL_SECONDS)
    install = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    lock = str(CLIENTS / client / "requirements.lock")
    options = ["--disable-pip-version-check", "--no-compile", "--require-hashes"]
    _run([*install, *options, "-r", lock], cwd=folder, env=_plain_env(), seconds=INSTALL_SECONDS)


def _create_node(client: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(CLIENTS / client / name, folder / name)
    install = [_find_program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
    _run(install, cwd=folder, env=_plain_env(), seconds=INSTALL_SECONDS)


def _find_program(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.fail(f"{program} is not installed here; the tests with Node clients need it")
    return path


def _plain_env() -> dict[str, str]:
    """Return our environment without this test run's packages and settings."""
    excluded = ("DREAMERY_", "PYTEST", "COV_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(excluded)}
    for name in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE"):
        env.pop(name, None)
    return {**env, "NO_PROXY": "127.0.0.1,localhost"}


def _run(command: list[str], *, cwd: Path, env: dict[str, str], seconds: float) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, timeout=seconds, check=False, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
        pytest.fail(f"not finished after {seconds} s: {' '.join(command)}\n{output[-20_000:]}")
    if done.returncode != 0:
        pytest.fail(f"exited with {done.returncode}: {' '.join(command)}\n{done.stdout[-20_000:]}")
    return done.stdout


@contextlib.contextmanager
def _locked(client: str) -> Iterator[None]:
    """Prevent two test processes from creating the same environment at once."""
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with (ENVIRONMENTS / f"{client}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
