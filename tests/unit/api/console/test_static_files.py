"""The console's files: texts in both languages, imports that resolve, nothing that the page's policy would block."""

import json
import re

import pytest

from tests.support.platform import ROOT

CONSOLE = ROOT / "api" / "console" / "static"
TEXT_FILES = [path for path in sorted((CONSOLE / "i18n").glob("*.js")) if path.name != "index.js"]
MODULES = [path for path in sorted(CONSOLE.rglob("*.js")) if "vendor" not in path.parts]
SOURCES = {path: path.read_text(encoding="utf-8") for path in MODULES if path not in TEXT_FILES}
# `t("x.y")` and lists of keys contain whole keys; t(`x.${y}`) contains a prefix.
KEY = re.compile(r'"([a-z_]+\.[a-z_]+)"')
KEY_PREFIX = re.compile(r"\b(?:t|lookup)\(`([a-z_]+\.[a-z_]*)\$\{")


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    """Every text of the console: key -> [English, Chinese]."""
    pairs: list[tuple[str, list[str]]] = []
    for path in TEXT_FILES:
        # The module is JSON after its comment and `export default`, apart from trailing commas.
        _, _, table = path.read_text(encoding="utf-8").partition("export default ")
        pairs += json.loads(re.sub(r",(\s*})", r"\1", table.rstrip().rstrip(";")), object_pairs_hook=list)
    assert len(dict(pairs)) == len(pairs), "duplicate key"
    return dict(pairs)


def test_lookup_includes_every_text_file():
    index = SOURCES[CONSOLE / "i18n" / "index.js"]
    assert len(TEXT_FILES) > 3
    for path in TEXT_FILES:
        assert f'import {path.stem} from "./{path.name}";' in index
        assert re.search(rf"\.\.\.{path.stem}\b", index), path.name


def test_every_text_exists_in_both_languages(texts):
    for key, pair in texts.items():
        assert len(pair) == 2, key
        assert all(text.strip() for text in pair), key
        english, chinese = (set(re.findall(r"{(\w+)}", text)) for text in pair)
        assert english == chinese, f"{key} has different placeholders in the two languages"


def test_every_used_text_exists_and_every_text_is_used(texts):
    areas = {key.partition(".")[0] for key in texts}
    used = {key for source in SOURCES.values() for key in KEY.findall(source) if key.partition(".")[0] in areas}
    prefixes = tuple({prefix for source in SOURCES.values() for prefix in KEY_PREFIX.findall(source)})
    assert used - set(texts) == set()
    assert all(any(key.startswith(prefix) for key in texts) for prefix in prefixes)
    assert {key for key in texts if key not in used and not key.startswith(prefixes)} == set()


def test_every_page_has_a_title(texts):
    names = re.findall(r'name: "(\w+)"', SOURCES[CONSOLE / "routes.js"])
    assert len(names) > 3
    assert [name for name in names if f"nav.{name}" not in texts] == []


def test_every_import_resolves_to_a_file():
    for path in sorted(CONSOLE.rglob("*.js")):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r'(?:^|[\s;}])(?:from|import) ?\(?"([^"]+)"', text, re.MULTILINE):
            assert name.startswith("."), f"{path.name} imports {name}: the page has no import map"
            assert (path.parent / name).resolve().is_file(), f"{path.name} imports {name}"


def test_page_complies_with_its_content_security_policy():
    page = (CONSOLE / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert re.findall(r"\sstyle=|<style|\son\w+=|https?://", page) == []
    for path, text in SOURCES.items():
        assert re.findall(r"innerHTML|\beval\(|new Function|style=\"", text) == [], path.name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(CONSOLE).as_posix())
def test_module_has_a_description_and_at_most_400_lines(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("// ")
    assert text.count("\n") <= 400
