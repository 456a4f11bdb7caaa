"""What Dreamery consists of besides its own code: Python packages, vendored npm packages, Debian's packages."""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.markers import Marker, default_environment

ROOT = Path(__file__).resolve().parents[2]
# The image's platform. Other Pythons and systems choose other lines of the lock file.
_IMAGE = {
    "implementation_name": "cpython", "os_name": "posix", "platform_machine": "x86_64", "platform_system": "Linux",
    "platform_python_implementation": "CPython", "python_full_version": "3.11.9", "python_version": "3.11",
    "sys_platform": "linux",
}  # fmt: skip
_LINE = re.compile(r"^([a-z0-9.\-]+)==(\S+?)(?: ; (.+?))? \\$", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_UNCLEAR = {"", "UNKNOWN", "Dual License"}


@dataclass(frozen=True, slots=True, order=True)
class Component:
    """`kind` = `pypi`, `npm` or `deb`, as in package URLs; `hashes` = SHA-256 of the files that may be installed."""

    kind: str
    name: str
    version: str
    licence: str = ""
    hashes: tuple[str, ...] = ()
    in_image: bool = True

    @property
    def key(self) -> str:
        """Name for people and for snapshots, such as `pypi/celery`."""
        return f"{self.kind}/{self.name}"


def own_version() -> str:
    """The version in pyproject.toml."""
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return version


def python_packages(lock: Path = ROOT / "requirements.lock", site_packages: Path | None = None) -> Iterator[Component]:
    """Yield the packages of a lock file, of all platforms; the licence is that of the installed package."""
    licences = {normal_name(found.name): licence_of(found) for found in _installed(site_packages)}
    text = lock.read_text()
    matches = list(_LINE.finditer(text))
    for match, after in zip(matches, [*matches[1:], None], strict=True):
        name, version, marker = match.groups()
        hashes = _HASH.findall(text[match.end() : after.start() if after else len(text)])
        applies = marker is None or Marker(marker).evaluate({**default_environment(), **_IMAGE})  # type: ignore[dict-item]
        yield Component("pypi", name, version, licences.get(name, ""), tuple(hashes), applies)


def npm_packages() -> Iterator[Component]:
    """Yield the libraries of the console, also those that are part of another one."""
    manifest = json.loads((ROOT / "api" / "console" / "static" / "vendor" / "manifest.json").read_text())
    for name, found in manifest["packages"].items():
        yield Component("npm", name, found["version"], found["license"])


def debian_packages(rootfs: Path) -> Iterator[Component]:
    """Yield the packages that are installed in the files of an image."""
    for block in (rootfs / "var/lib/dpkg/status").read_text().split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Status): (.+)$", block, re.MULTILINE))
        if fields.get("Status") == "install ok installed":
            yield Component("deb", fields["Package"], fields["Version"])


def installed_packages(rootfs: Path) -> Iterator[Component]:
    """Yield the Python packages in the files of an image, without our own."""
    for folder in rootfs.glob("opt/venv/lib/python3*/site-packages"):
        for found in _installed(folder):
            if found.name != "dreamery":
                yield Component("pypi", normal_name(found.name), found.version, licence_of(found))


def normal_name(name: str) -> str:
    """Return the name as lock files write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_of(found: Distribution) -> str:
    """Return what a package says about its licence: the SPDX expression, else its classifiers, else its free text."""
    fields = found.metadata
    if expression := fields.get("License-Expression"):
        return str(expression)
    prefix = "License :: "
    classifiers = [str(line) for line in fields.get_all("Classifier") or [] if str(line).startswith(prefix)]
    names = sorted({line.rpartition(" :: ")[2] for line in classifiers} - {"OSI Approved"})
    free = str(fields.get("License") or "").strip().partition("\n")[0]
    return " or ".join(names) if names else free if free not in _UNCLEAR and len(free) < 80 else ""


def _installed(folder: Path | None) -> Iterator[Distribution]:
    return iter(distributions(path=[str(folder)]) if folder else distributions())
