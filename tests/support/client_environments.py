"""Environments of real clients: each in its own, pinned, made once and kept.

A client is a folder here with a lock and scripts:

- Python: `requirements.in` (what is wanted), `requirements.lock` (every package with its hashes), `*.py`.
- Node: `package.json`, `package-lock.json`, `.npmrc` (its `omit-lockfile-registry-resolved` keeps hosts out of the lock),
  `*.mjs`.

`run("openai1", "check.py", platform, key, "pictures")` makes the environment when it is not there yet, runs the script
in it with `DREAMERY_URL` and `DREAMERY_KEY` set, and fails the test with all that the script said unless it ended well.
Environments lie in `.venv/clients/NAME-HASH`; the hash is that of the lock and the interpreter, so a changed lock makes
a new one and removes the old. What cannot be installed fails the test: a client that was not tried is not a client that
works.

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
KEPT = ROOT / ".venv" / "clients"
INSTALL_SECONDS = 600
_READY = ".ready"


def run(client: str, script: str, platform: Platform, key: str, *arguments: str, seconds: float = 240) -> str:
    """What the script printed. Fails the test when it cannot be run or ends with anything but 0."""
    return run_at(client, script, platform.url, key, *arguments, seconds=seconds)


def run_at(client: str, script: str, url: str, key: str, *arguments: str, seconds: float = 240) -> str:
    """The same against whatever listens at `url`."""
    place = environment(client)
    program = [str(place / "bin" / "python"), str(CLIENTS / client / script)]
    if _is_node(client):
        # Node looks for packages beside the script.
        shutil.copy(CLIENTS / client / script, place / script)
        program = [_found("node"), str(place / script)]
    env = {**_plain_env(), "DREAMERY_URL": url, "DREAMERY_KEY": key}
    return _run([*program, *arguments], cwd=place, env=env, seconds=seconds)


def environment(client: str) -> Path:
    """The folder of the client's environment, made when it is not there yet."""
    lock = CLIENTS / client / ("package-lock.json" if _is_node(client) else "requirements.lock")
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
    place = KEPT / f"{client}-{digest}"
    with _alone(client):
        if not (place / _READY).exists():
            for old in KEPT.glob(f"{client}-*"):
                shutil.rmtree(old)
            (_make_node if _is_node(client) else _make_python)(client, place)
            (place / _READY).touch()
    return place


def _is_node(client: str) -> bool:
    return (CLIENTS / client / "package.json").exists()


def _make_python(client: str, place: Path) -> None:
    # By our own pip, and not compiled before it is used: half a minute less for each.
    make = [sys.executable, "-m", "venv", "--without-pip", str(place)]
    _run(make, cwd=ROOT, env=_plain_env(), seconds=INSTALL_SECONDS)
    install = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "install", "--quiet"]
    lock = str(CLIENTS / client / "requirements.lock")
    options = ["--disable-pip-version-check", "--no-compile", "--require-hashes"]
    _run([*install, *options, "-r", lock], cwd=place, env=_plain_env(), seconds=INSTALL_SECONDS)


def _make_node(client: str, place: Path) -> None:
    place.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(CLIENTS / client / name, place / name)
    install = [_found("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
    _run(install, cwd=place, env=_plain_env(), seconds=INSTALL_SECONDS)


def _found(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.fail(f"{program} is not installed here; the tests with Node clients need it")
    return found


def _plain_env() -> dict[str, str]:
    """Our environment without what would lead a child into this test run's packages, or its settings."""
    strange = ("DREAMERY_", "PYTEST", "COV_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    for name in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE"):
        kept.pop(name, None)
    return {**kept, "NO_PROXY": "127.0.0.1,localhost"}


def _run(command: list[str], *, cwd: Path, env: dict[str, str], seconds: float) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, timeout=seconds, check=False, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        said = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or ""
        pytest.fail(f"not done after {seconds} s: {' '.join(command)}\n{said[-20_000:]}")
    if done.returncode != 0:
        pytest.fail(f"ended with {done.returncode}: {' '.join(command)}\n{done.stdout[-20_000:]}")
    return done.stdout


@contextlib.contextmanager
def _alone(client: str) -> Iterator[None]:
    """Two test processes must not make the same environment at once."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / f"{client}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
