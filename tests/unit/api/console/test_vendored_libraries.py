"""The console's libraries: each file is the one that `make vendor` made of the package that the lock file names."""

import hashlib
import json
import re

import pytest

from tests.support.platform import ROOT

VENDOR = ROOT / "api" / "console" / "static" / "vendor"
SOURCE = ROOT / "deploy" / "vendor"
MANIFEST = json.loads((VENDOR / "manifest.json").read_text(encoding="utf-8"))["packages"]
REQUEST = json.loads((SOURCE / "package.json").read_text(encoding="utf-8"))
LOCK_TEXT = (SOURCE / "package-lock.json").read_text(encoding="utf-8")
LOCKED = {
    path.removeprefix("node_modules/"): entry for path, entry in json.loads(LOCK_TEXT)["packages"].items() if path
}


def test_manifest_lists_the_packages_of_the_lock_file():
    assert len(LOCKED) > 5
    assert set(MANIFEST) == set(LOCKED)
    for name, entry in MANIFEST.items():
        for field in ("version", "integrity", "license"):
            assert entry[field] == LOCKED[name][field], f"{name}: {field}"
        assert entry["integrity"].startswith("sha512-")


def test_lock_file_pins_versions_and_names_no_address():
    assert "://" not in LOCK_TEXT
    assert set(REQUEST["files"]) == set(REQUEST["dependencies"])
    for name, version in REQUEST["dependencies"].items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), name
        assert LOCKED[name]["version"] == version


def test_every_file_has_the_hash_of_the_manifest_and_no_other_file_is_there():
    listed = {path: digest for entry in MANIFEST.values() for path, digest in entry["files"].items()}
    present = {path.relative_to(VENDOR).as_posix(): path for path in VENDOR.rglob("*") if path.is_file()}
    assert set(present) - {"README.md", "manifest.json"} == set(listed)
    for name, digest in listed.items():
        assert hashlib.sha256(present[name].read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("name", sorted(MANIFEST))
def test_package_has_its_licence_and_the_files_it_was_added_for(name):
    entry = MANIFEST[name]
    licence = (VENDOR / entry["licence_file"]).read_text(encoding="utf-8")
    assert re.search(r"copyright", licence, re.IGNORECASE)
    assert len(licence) > 500
    copied = set(entry["files"]) - {entry["licence_file"]}
    assert copied == set(REQUEST["files"].get(name, {}).values())
    assert copied or entry["note"]


def test_no_library_asks_for_a_source_map():
    for path in [*VENDOR.rglob("*.js"), *VENDOR.rglob("*.css")]:
        assert "sourceMappingURL" not in path.read_text(encoding="utf-8"), path.name
