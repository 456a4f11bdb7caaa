"""Installs the programs that `make test-ops` tests with, where apt-get and root are there. It starts no service.

`python -m tests.ops.debian_packages` always ends with 0: what is missing is skipped by the tests that need it.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

# Program, and Debian's package.
PACKAGES = {
    "ip": "iproute2",
    "iptables": "iptables",
    "nginx": "nginx",
    "pgbouncer": "pgbouncer",
    "postgres": "postgresql",
    "redis-sentinel": "redis-sentinel",
    "redis-server": "redis-server",
}
# The path of users other than root may lack the folders of servers.
_FOLDERS = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))]
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), *_FOLDERS])
# For both commands together. A slower mirror is given up.
_SECONDS = 60
# Debian's packages start their services unless this program forbids it.
_POLICY = Path("/usr/sbin/policy-rc.d")


def missing() -> list[str]:
    """Return the Debian packages whose program is not there."""
    return sorted({package for name, package in PACKAGES.items() if shutil.which(name, path=SEARCH_PATH) is None})


def install(packages: list[str]) -> str:
    """Install packages and return an empty text, or the reason why that is impossible."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return "installing them needs root and apt-get"
    forbids = not _POLICY.exists()
    if forbids:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        return _apt(packages)
    finally:
        if forbids:
            _POLICY.unlink(missing_ok=True)


def _apt(packages: list[str]) -> str:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    end = time.monotonic() + _SECONDS
    for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *packages]):
        try:
            process = subprocess.run(
                ["apt-get", "-o", "DPkg::Lock::Timeout=30", *command],
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=max(1.0, end - time.monotonic()),
            )
        except subprocess.TimeoutExpired:
            return f"apt-get {command[0]} took longer than {_SECONDS} s"
        if process.returncode:
            return f"apt-get {command[0]} failed: {(process.stderr or process.stdout).strip()[-300:]}"
    return ""


def main() -> None:
    """Install what is missing, and say what the tests will skip."""
    packages = missing()
    if not packages:
        return
    sys.stdout.write(f"Installing for tests/ops: {' '.join(packages)}\n")
    reason = install(packages)
    left = missing()
    if left:
        sys.stdout.write(
            f"Skipped: the tests that need {' '.join(left)}, because {reason or 'apt-get did not bring them'}.\n"
        )


if __name__ == "__main__":
    main()
