"""Build the images of the Dockerfile without a registry and without a daemon: debootstrap for the base, buildah for the rest."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BASE = "python:3.11-slim-bookworm"
_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
PROGRAMS = {"buildah": "buildah", "debootstrap": "debootstrap", "setpriv": "util-linux", "unshare": "util-linux"}


class NotPossibleError(Exception):
    """This machine cannot do it; the message says why."""


@dataclass(frozen=True, slots=True)
class Image:
    """`rootfs` = its mounted files; `config` = what Docker would read: Env, User, Entrypoint, Cmd, Healthcheck."""

    name: str
    rootfs: Path
    config: dict[str, Any]


class Builder:
    """Builds in `folder`, which is kept: a second run takes a minute instead of ten."""

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0:
            raise NotPossibleError("debootstrap and mounts need root")
        if missing := sorted({package for name, package in PROGRAMS.items() if shutil.which(name) is None}):
            raise NotPossibleError(f"not installed: apt-get install --no-install-recommends {' '.join(missing)}")
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._mounted: list[str] = []

    def buildah(self, *arguments: str) -> str:
        """Run buildah with its files in our folder and return its output."""
        places = ("--root", f"{self.folder}/store", "--runroot", f"{self.folder}/run", "--storage-driver", "overlay")
        env = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
        done = subprocess.run(
            ["buildah", *places, *arguments], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"buildah {' '.join(arguments[:4])} ended with {done.returncode}")
        return done.stdout.strip()

    def make_base(self) -> None:
        """Make the image that the Dockerfile starts from: Debian's own Python instead of Docker Hub's image."""
        if BASE in self.buildah("images", "--format", "{{.Name}}:{{.Tag}}"):
            return
        system = self.folder / "base"
        if not system.exists():
            draft = self.folder / "unfinished-base"
            shutil.rmtree(draft, ignore_errors=True)
            # In a namespace of its own, so that an interrupted run leaves no /proc mounted in the folder.
            command = [
                "unshare",
                "-m",
                "debootstrap",
                "--variant=minbase",
                f"--include={_PACKAGES}",
                "bookworm",
                str(draft),
            ]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            draft.rename(system)
        (system / "usr/local/bin/python").unlink(missing_ok=True)
        (system / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        container = self.buildah("from", "scratch")
        self.buildah("add", "-q", container, str(system), "/")
        self.buildah("config", "--env", "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", container)
        self.buildah("commit", "-q", "--rm", container, f"localhost/{BASE}")

    def fetch_packages(self) -> Path:
        """Download the locked packages with this machine's pip settings; the build then needs no index."""
        wheels = self.folder / "wheels"
        # Markers name the patch version of Python, and the base has another one than this machine.
        lock = re.sub(r" ; python_full_version < '3\.11\.\d+'", "", (ROOT / "requirements.lock").read_text())
        complete = self.folder / "all.lock"
        if wheels.exists() and complete.exists() and complete.read_text() == lock:
            return wheels
        draft = self.folder / "wanted.lock"
        draft.write_text(lock)
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-qq", "--no-deps")
        subprocess.run([*pip, "--require-hashes", "-r", str(draft), "-d", str(wheels)], check=True)
        (self.folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        # Last, so that an interrupted run begins again.
        draft.replace(complete)
        return wheels

    def build(self, target: str, *, reuse: bool = False) -> Image:
        """Build one target of the Dockerfile, unless the last build is wanted, and mount it."""
        name = f"localhost/dreamery-test:{target}"
        if reuse:
            return self.mount(name)
        volumes = (f"{self.folder}/wheels:/wheels:ro", f"{self.folder}/pip.conf:/etc/pip.conf:ro")
        mounts = [part for volume in volumes for part in ("--volume", volume)]
        # Docker's format: OCI's has no health checks.
        self.buildah(
            "bud", "-q", "--format", "docker", "--pull-never", "--layers", "--network", "host", *mounts,
            "--target", target, "-t", name, ".",
        )  # fmt: skip
        return self.mount(name)

    def mount(self, name: str) -> Image:
        """Mount a built image as the root file system of containers."""
        config = json.loads(self.buildah("inspect", "--type", "image", name))["Docker"]["config"]
        container = self.buildah("from", "--pull-never", name)
        self._mounted.append(container)
        return Image(name=name, rootfs=Path(self.buildah("mount", container)), config=config)

    def close(self) -> None:
        """Remove the mounts; images stay."""
        for container in self._mounted:
            self.buildah("rm", container)
        self._mounted.clear()
