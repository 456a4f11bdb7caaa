"""The console's files: words in both languages, modules that exist, nothing that the page's policy would refuse."""

import json
import re
from pathlib import Path

import pytest

from tests.support.platform import ROOT

CONSOLE = ROOT / "api" / "console" / "static"
OURS = [path for path in sorted(CONSOLE.rglob("*.js")) if "vendor" not in path.parts and path.name != "i18n.js"]
SOURCES = {path: path.read_text(encoding="utf-8") for path in OURS}
# `t("x.y")` and tables of keys name them whole; t(`x.${y}`) by how they begin.
WHOLE = re.compile(r'"([a-z]+\.[a-z_]+)"')
BEGINNING = re.compile(r"t\(`([a-z]+\.[a-z_]*)\$\{")


@pytest.fixture(scope="module")
def table() -> dict[str, list[str]]:
    text = (CONSOLE / "i18n.js").read_text(encoding="utf-8")
    # The module is JSON but for its first words and trailing commas.
    pairs = json.loads(
        re.sub(r",(\s*})", r"\1", text.removeprefix("export default ").rstrip().rstrip(";")), object_pairs_hook=list
    )
    assert len(dict(pairs)) == len(pairs), "a key is there twice"
    return dict(pairs)


def test_every_text_is_there_in_both_languages(table):
    for key, texts in table.items():
        assert len(texts) == 2, key
        assert all(text.strip() for text in texts), key
        english, chinese = (set(re.findall(r"{(\w+)}", text)) for text in texts)
        assert english == chinese, f"{key} fills in other values in the other language"


def test_every_text_that_is_asked_for_is_there_and_no_other(table):
    areas = {key.partition(".")[0] for key in table}
    used = {key for text in SOURCES.values() for key in WHOLE.findall(text) if key.partition(".")[0] in areas}
    beginnings = tuple({key for text in SOURCES.values() for key in BEGINNING.findall(text)})
    assert used - set(table) == set()
    assert all(any(key.startswith(one) for key in table) for one in beginnings)
    assert {key for key in table if key not in used and not key.startswith(beginnings)} == set()


def test_every_page_of_the_menu_has_a_name(table):
    named = re.findall(r'name: "(\w+)"', SOURCES[CONSOLE / "routes.js"])
    assert len(named) > 3
    assert [name for name in named if f"nav.{name}" not in table] == []


def test_every_import_names_a_file():
    for path in sorted(CONSOLE.rglob("*.js")):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r'(?:^|[\s;}])(?:from|import) ?\(?"([^"]+)"', text, re.MULTILINE):
            assert name.startswith("."), f"{path.name} imports {name}: the page has no import map"
            assert (path.parent / name).resolve().is_file(), f"{path.name} imports {name}"


def test_the_page_needs_no_exception_from_its_policy():
    page = (CONSOLE / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert re.findall(r"\sstyle=|<style|\son\w+=|https?://", page) == []
    for path, text in SOURCES.items():
        assert re.findall(r"innerHTML|\beval\(|new Function|style=\"", text) == [], path.name


def test_every_vendored_library_has_its_licence_and_version():
    readme = (CONSOLE / "vendor" / "README.md").read_text(encoding="utf-8")
    for path in Path(CONSOLE / "vendor").glob("*.js"):
        assert f"`{path.name}`" in readme
        assert (path.parent / f"{path.stem.partition('-')[0]}.LICENSE").is_file()


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_a_module_says_what_it_is_and_stays_readable(path):
    text = SOURCES[path]
    assert text.startswith("// ")
    assert text.count("\n") <= 400
