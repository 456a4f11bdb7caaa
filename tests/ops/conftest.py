"""Tests with real programs of Debian, firewalls and small disks: `make test-ops`. A test skips what the machine lacks."""

import ipaddress
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.ops.debian_packages import PACKAGES, SEARCH_PATH

# Of this process: several try at the same time.
_PROBE = f"dreamery-probe-{os.getpid()}"
# Programs that need root, and the command that tells whether this machine lets them work.
_PROBES = {
    "ip": f"ip netns add {_PROBE} && ip netns exec {_PROBE} true && ip netns delete {_PROBE}",
    "iptables": f"ip netns add {_PROBE} && ip netns exec {_PROBE} iptables -L -n && ip netns delete {_PROBE}",
    "mount": "unshare --mount sh -c 'mount -t tmpfs -o size=1m tmpfs /mnt'",
}


_began = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option with which the gate bounds its time."""
    parser.addoption("--begin-within", type=float, metavar="SECONDS", help="skip tests that would begin later")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test for which there is no time left."""
    seconds = item.config.getoption("--begin-within")
    if seconds is not None and time.monotonic() - _began > seconds:
        pytest.skip(f"this machine needed more than {seconds:.0f} s for the tests before")


@cache
def _reason_to_skip(name: str) -> str | None:
    path = shutil.which(name, path=SEARCH_PATH)
    if path is None:
        return f"{name} is not installed (Debian's package {PACKAGES.get(name, name)})"
    if name not in _PROBES:
        return None
    if os.geteuid() != 0:
        return f"{name} needs root"
    env = {**os.environ, "PATH": SEARCH_PATH}
    try:
        probe = subprocess.run(
            ["sh", "-c", _PROBES[name]], env=env, capture_output=True, text=True, check=False, timeout=20
        )
    except subprocess.TimeoutExpired:
        return f"{name} does not answer on this machine"
    finally:
        subprocess.run(["ip", "netns", "delete", _PROBE], env=env, capture_output=True, check=False)
    return None if probe.returncode == 0 else f"{name} does not work on this machine: {probe.stderr.strip()[-200:]}"


@pytest.fixture(scope="session")
def program() -> Callable[[str], Path]:
    """`program(name)` returns the path of a program, or skips the test and says why.

    `ip` and `iptables` also need root and network namespaces, `mount` root and mount namespaces. nginx, pgbouncer,
    redis-server and redis-sentinel only have to be installed.
    """

    def find(name: str) -> Path:
        reason = _reason_to_skip(name)
        if reason is not None:
            pytest.skip(reason)
        return Path(str(shutil.which(name, path=SEARCH_PATH)))

    return find


@pytest.fixture(autouse=True)
def _no_outside_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only connections to this machine and to private addresses, which network namespaces have, are allowed."""
    connect = socket.socket.connect

    def private_only(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host != "localhost" and not ipaddress.ip_address(host).is_private:
            pytest.fail(f"a test tried to connect to {host}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", private_only)
