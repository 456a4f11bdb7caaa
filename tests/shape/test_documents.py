"""The documents: every link, setting, command and error code in them exists."""

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer
from markdown_it import MarkdownIt
from markdown_it.token import Token
from typer.core import TyperCommand, TyperGroup

from api.cli.main import app
from tests.support.platform import ROOT
from worker.core.catalog.provider_data import all_constants
from worker.core.errors import ERRORS
from worker.core.settings import FORMER_NAMES, Settings

TOP = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
DOCUMENTS = sorted([*ROOT.glob("README*.md"), *(ROOT / name for name in TOP), *(ROOT / "docs").glob("*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
SETTINGS = frozenset(
    f"DREAMERY_{name.upper()}" for name in [*Settings.model_fields, *(one.setting for one in all_constants())]
)
FORMER = frozenset(f"DREAMERY_{name.upper()}" for name in [*FORMER_NAMES, *(one.former for one in all_constants())])
NOT_SETTINGS = {
    "DREAMERY_BIND": "docker-compose.yml",
    "DREAMERY_KEY": "`dreamery mcp`",
    "DREAMERY_MEMORY": "compose.small.yml",
    "DREAMERY_PORT": "docker-compose.yml",
    "DREAMERY_URL": "the commands that talk to a platform",
    "DREAMERY_WEBHOOK_SECRET": "the receivers of docs/webhooks.md",
}
# Lines in which `dreamery` is a name given to another tool, not our command.
OTHER_TOOLS = re.compile(r"\b(kubectl|useradd|systemctl|chown|claude|docker (?:run|logs|rm))\b")
IN_CONTAINER = re.compile(r"docker exec (?:-i )?dreamery ")
COMMAND = re.compile(r"(?:^|(?<=[\s/(;|&]))dreamery[ \t]+(?=[a-z-])")

pytestmark = pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)


@cache
def parsed(path: Path) -> list[Token]:
    """Return the block and inline tokens of a document in order."""
    blocks = MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))
    return [token for block in blocks for token in (block, *(block.children or ()))]


@cache
def headings(path: Path) -> list[tuple[str, str]]:
    """Return level and text of each heading."""
    tokens = parsed(path)
    texts = ((token.tag, after) for token, after in pairwise(tokens) if token.type == "heading_open")
    return [(tag, "".join(part.content for part in inline.children or ())) for tag, inline in texts]


@cache
def anchors(path: Path) -> frozenset[str]:
    """Return the anchors of a document as GitHub creates them: a repeated heading gets a number."""
    found: list[str] = []
    for _, text in headings(path):
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        again = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", one) is not None for one in found)
        found.append(f"{slug}-{again}" if again else slug)
    return frozenset(found)


def links(path: Path) -> Iterator[str]:
    for token in parsed(path):
        target = token.attrs.get("href" if token.type == "link_open" else "src")
        if isinstance(target, str) and not urlsplit(target).scheme:
            yield target


def codes(path: Path) -> Iterator[str]:
    """Yield the lines of code blocks, with continued lines joined, and whole code spans."""
    for token in parsed(path):
        if token.type == "fence":
            yield from token.content.replace("\\\n", " ").splitlines()
        elif token.type == "code_inline":
            yield token.content


def test_links_resolve(path: Path) -> None:
    dead = []
    for target in links(path):
        name, _, anchor = target.partition("#")
        place = (path.parent / unquote(name)).resolve() if name else path
        known = place.exists() and place.is_relative_to(ROOT)
        if not known or (anchor and unquote(anchor) not in anchors(place)):
            dead.append(target)
    assert dead == []


def test_named_documents_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/.])docs/[\w-]+\.md\b", text))
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


def test_settings_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"\bDREAMERY_[A-Z0-9_]+\b", text))
    former = FORMER if path.name == "configuration.md" else set()
    assert sorted(named - SETTINGS - NOT_SETTINGS.keys() - former) == []
    if path.name.startswith("README"):
        # The table of settings omits the prefix.
        cells = re.findall(r"^\| ((?:`[A-Z0-9_]+`(?:, )?)+) \|", text, re.MULTILINE)
        short = [name for cell in cells for name in re.findall(r"[A-Z0-9_]+", cell)]
        assert short
        assert [name for name in short if f"DREAMERY_{name}" not in SETTINGS] == []


@cache
def commands() -> TyperGroup:
    """Return the command line interface."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group


def invalid_word(words: list[str]) -> str | None:
    """Return the first word after `dreamery` that is not a command or option; None = all are valid."""
    here: TyperGroup | TyperCommand = commands()
    for word in words:
        if isinstance(here, TyperGroup) and re.fullmatch(r"[a-z][a-z-]*", word):
            found = here.commands.get(word)
            if not isinstance(found, TyperGroup | TyperCommand):
                return word
            here = found
        elif word.startswith("--") and len(word) > 2:
            name = word.partition("=")[0]
            if name != "--help" and not any(name in [*one.opts, *one.secondary_opts] for one in here.params):
                return word
    return None


def test_commands_exist(path: Path) -> None:
    wrong = []
    for line in codes(path):
        if OTHER_TOOLS.search(line):
            continue
        inside = IN_CONTAINER.sub("", line)
        for match in COMMAND.finditer(inside):
            rest = re.split(r"[|<>;&#)]|\s-- ", inside[match.end() :])[0]
            words = re.sub(r"\"[^\"]*\"|'[^']*'", "TEXT", rest).replace("`", " ").split()
            if bad := invalid_word(words):
                wrong.append(f"{bad!r} in {line.strip()!r}")
    assert wrong == []


def test_subcommands_in_tables_exist(path: Path) -> None:
    # | `dreamery keys add alice` | API keys; `list`, `rotate` |
    wrong = []
    for row in re.findall(r"^\| *`dreamery .*$", path.read_text(encoding="utf-8"), re.MULTILINE):
        group = commands().commands.get(row.split()[2].strip("`"))
        if isinstance(group, TyperGroup):
            words = re.findall(r"`([a-z][a-z-]*)`", row)
            wrong += [word for word in words if word not in group.commands]
    assert wrong == []


def test_error_codes_have_the_documented_status(path: Path) -> None:
    # | 400, 410 | `invalid_value`, `file_expired` | what to do |
    rows = re.findall(r"^\| (\d{3}(?:, \d{3})*) \| ((?:`[a-z_]+`(?:, )?)+) \|", path.read_text("utf-8"), re.MULTILINE)
    named = [(code, status) for status, cell in rows for code in re.findall(r"`([a-z_]+)`", cell)]
    assert named or path.name != "api.md"
    assert [one for one in named if one[0] not in ERRORS or str(ERRORS[one[0]].status) not in one[1]] == []


def test_both_readmes_have_the_same_content(path: Path) -> None:
    if not path.name.startswith("README"):
        return
    other = ROOT / "README.md"
    assert [level for level, _ in headings(path)] == [level for level, _ in headings(other)]
    assert blocks_of(path) == blocks_of(other)
    # Only the link to the other language differs.
    assert {*links(path)} ^ {*links(other)} == ({"README.md", "README.zh-CN.md"} if path != other else set())
    assert [sorted(row) for row in tables(path)] == [sorted(row) for row in tables(other)]


def test_translated_documents_have_the_same_sections(path: Path) -> None:
    if not path.name.endswith(".zh-CN.md"):
        return
    original = path.with_name(path.name.replace(".zh-CN", ""))
    assert [level for level, _ in headings(path)] == [level for level, _ in headings(original)]
    assert path.name in {*links(original)}
    assert original.name in {*links(path)}


def blocks_of(path: Path) -> list[tuple[str, str]]:
    """Return language and content of each code block. Comments are translated, so they do not count."""
    blocks = [(token.info, token.content) for token in parsed(path) if token.type == "fence"]
    return [(info, re.sub(r"[ \t]+# .*", "", content)) for info, content in blocks]


def tables(path: Path) -> list[list[str]]:
    """Return the code spans of each table row in order."""
    rows: list[list[str]] = []
    for token in parsed(path):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "code_inline" and rows:
            rows[-1].append(token.content)
    return rows
