"""Finds promtool for the tests: on the PATH, or unpacked from Debian's package below .venv without installing it."""

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
    """Return the path of promtool. Fails the test with instructions when it is missing and cannot be downloaded."""
    unpacked = _TOOLS / "promtool"
    found = shutil.which("promtool") or (str(unpacked) if unpacked.exists() else None)
    return found or _download(unpacked)


def _download(unpacked: Path) -> str:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.fail(_REMEDY)
    state = _TOOLS / "apt"
    for folder in (state / "lists" / "partial", state / "cache" / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    # Separate lists and cache: the system stays unchanged and no root is needed.
    apt_options = [
        "-o", f"Dir::State::Lists={state}/lists", "-o", f"Dir::Cache={state}/cache", "-o", "APT::Sandbox::User=",
        "-o", "Acquire::Retries=2",
    ]  # fmt: skip
    log = ""
    for command in (
        ["apt-get", "-q", *apt_options, "update"],
        ["apt-get", "-q", *apt_options, "download", "prometheus"],
    ):
        done = subprocess.run(command, cwd=state, capture_output=True, text=True, timeout=240, check=False)
        log += done.stdout + done.stderr
    for package in state.glob("prometheus_*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, state / "unpacked"], check=True, timeout=60)
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        (state / "unpacked" / "usr" / "bin" / "promtool").replace(unpacked)
    shutil.rmtree(state)
    if not unpacked.exists():
        pytest.fail(f"{_REMEDY}apt-get could not download it:\n{log[-1500:]}")
    return str(unpacked)
