"""Prometheus' own checker for the tests: the one on the PATH, else Debian's, unpacked below .venv without installing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_TOOLS = Path(sys.prefix) / "share" / "dreamery-tools"
_REMEDY = (
    "The checks of deploy/prometheus need promtool. Install Prometheus (Debian and Ubuntu: apt-get install prometheus; "
    "macOS: brew install prometheus) or put promtool on the PATH. "
)


def promtool() -> str:
    """Where promtool is. Fails the test, saying what to do, when there is none and none can be had."""
    unpacked = _TOOLS / "promtool"
    found = shutil.which("promtool") or (str(unpacked) if unpacked.exists() else None)
    return found or _fetched(unpacked)


def _fetched(unpacked: Path) -> str:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.fail(_REMEDY)
    state = _TOOLS / "apt"
    for folder in (state / "lists" / "partial", state / "cache" / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    # Lists of its own, so that nothing of the system is changed and no root is needed.
    own = [
        "-o", f"Dir::State::Lists={state}/lists", "-o", f"Dir::Cache={state}/cache", "-o", "APT::Sandbox::User=",
        "-o", "Acquire::Retries=2",
    ]  # fmt: skip
    log = ""
    for command in (["apt-get", "-q", *own, "update"], ["apt-get", "-q", *own, "download", "prometheus"]):
        done = subprocess.run(command, cwd=state, capture_output=True, text=True, timeout=240, check=False)
        log += done.stdout + done.stderr
    for package in state.glob("prometheus_*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, state / "unpacked"], check=True, timeout=60)
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        (state / "unpacked" / "usr" / "bin" / "promtool").replace(unpacked)
    shutil.rmtree(state)
    if not unpacked.exists():
        pytest.fail(f"{_REMEDY}It could not be fetched by apt-get:\n{log[-1500:]}")
    return str(unpacked)
