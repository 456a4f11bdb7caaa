"""Sizes and words of the code: entries per folder, lines per file and function, and words that have a standard term."""

import ast
import re
import subprocess
from collections import defaultdict
from pathlib import Path, PurePosixPath

from tests.support.platform import ROOT

MOST_ENTRIES = 16
MOST_LINES = 400
MOST_FUNCTION_LINES = 60
# The state machine is one file on purpose (invariant I1); its SQL takes the room.
LONGER_FILES = {"worker/db/jobs/state_machine.py": 640}
# Data and third-party files: one file per record, not read from top to bottom.
UNLIMITED_FOLDERS = ("api/console/static/vendor", "docs", "migrations/versions", "tests/fixtures")
NOT_OURS = ("api/console/static/vendor/", "tests/browser/axe")

# The word, and the term to use instead.
FORBIDDEN_WORDS = {
    r"told": "result, message, as_dict",
    r"wish(es|ed)?": "request, requirement",
    r"(over)?hears?|heard": "receive, listen",
    r"whoever": "the caller, a client, anyone who",
    r"ears|deaf": "liveness, unresponsive",
    r"films?": "video",
    r"strays?": "orphaned file",
    r"leavers?": "disconnected client, unused account",
    r"nudges?": "wake-up, enqueue",
    r"purse": "available credits",
    r"glimpse": "peek",
    r"lies? with": "is caused by",
    r"hangs? on": "depends on",
    r"part with": "give up, remove",
    r"for ever": "permanently",
    r"as ever": "as usual",
    r"of (yours|theirs)": "your, their",
}
# Names that running processes, dashboards and users rely on: keys in Redis, metrics, log events, labels, settings.
WIRE_NAMES = (
    "dreamery_nudges_lost",
    "nudge_lost",
    "film_without_picture",
    "deaf_seconds",
    "heard_seconds",
    "told_seconds",
    '"heard"',
    '"told"',
    '"hears"',
    "hears = ",
    'hears="',
    "heard=",
    "told=",
    "not_told",
    "DREAMERY_DEAF_SECONDS",
    "DreameryWorkerDeaf",
    "DreameryNudgesLost",
    "x-should-retry",
    "|film)",  # a word that users write
)
_WORDS = re.compile(r"\b(" + "|".join(f"(?:{word})" for word in FORBIDDEN_WORDS) + r")\b", re.IGNORECASE)


def tracked(*patterns: str) -> list[str]:
    """The files that git tracks, as paths from the top."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


CODE = [
    name
    for name in tracked("api/*.py", "worker/*.py", "tests/*.py", "api/*.js", "api/*.css", "migrations/env.py")
    if not name.startswith(NOT_OURS)
]


def test_no_folder_has_too_many_entries() -> None:
    entries: dict[str, set[str]] = defaultdict(set)
    for name in tracked("api", "worker", "tests", "docs", "deploy"):
        path = PurePosixPath(name)
        if path.name == "__init__.py":
            continue
        for parent in path.parents:
            entries[str(parent)].add(path.relative_to(parent).parts[0])
    crowded = {
        folder: len(found)
        for folder, found in entries.items()
        if folder != "." and len(found) > MOST_ENTRIES and not folder.startswith(UNLIMITED_FOLDERS)
    }
    assert crowded == {}


def test_files_and_functions_are_short() -> None:
    """One test for all files, because a thousand tests take longer than their content."""
    long: list[str] = []
    for name in CODE:
        if name.startswith("tests/") or not name.endswith((".py", ".js")):
            continue
        text = (ROOT / name).read_text(encoding="utf-8")
        if text.count("\n") > LONGER_FILES.get(name, MOST_LINES):
            long.append(name)
        nodes = ast.walk(ast.parse(text)) if name.endswith(".py") else ()
        functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        long += [f"{name}: {node.name}" for node in functions if length(node) >= MOST_FUNCTION_LINES]
    assert long == []


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno


def words_in(text: str) -> list[str]:
    """Forbidden words, also as parts of identifiers such as `_told` or `hear_stop`, and in CamelCase."""
    for name in WIRE_NAMES:
        text = text.replace(name, "")
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).replace("_", " ")
    return sorted({match[0].lower() for match in _WORDS.finditer(apart)})


def test_code_uses_standard_terms() -> None:
    own = str(Path(__file__).relative_to(ROOT))
    found = {name: words_in((ROOT / name).read_text(encoding="utf-8")) for name in CODE if name != own}
    assert {name: words for name, words in found.items() if words} == {}, "see FORBIDDEN_WORDS for the term to use"


def test_forbidden_words_are_found_in_identifiers_and_text() -> None:
    assert words_in("def _told(): ...") == ["told"]
    assert words_in("class UserWish:") == ["wish"]
    assert words_in("# kept for ever") == ["for ever"]
    assert words_in("wishbone, untold, appears, filmstrip") == []
