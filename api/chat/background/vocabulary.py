"""The words of `vocabulary.toml` as regular expressions."""

import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

# Scripts whose words are separated by spaces; entries in other scripts match anywhere.
_SPACED = re.compile(r"[a-z\u00c0-\u024f\u0370-\u052f\u1e00-\u1eff]", re.IGNORECASE)
_SKIPPED = re.compile(r"^(?:\(\?:|\\b|\[)+")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Compiled words, for texts in lower case. `tasks` has the kinds in the order in which they are preferred.

    Without the flag for any case the engine skips an alternative by its first letter, which is ten times faster.
    """

    greetings: frozenset[str]
    transcript_tags: frozenset[str]
    content_tags: frozenset[str]
    user_roles: tuple[str, ...]
    assistant_roles: tuple[str, ...]
    conversation: re.Pattern[str]
    tasks: dict[str, re.Pattern[str]]
    limits: re.Pattern[str]
    references: re.Pattern[str]
    units: re.Pattern[str]
    pictures: re.Pattern[str]


@lru_cache(maxsize=1)
def get_vocabulary() -> Vocabulary:
    """Return the vocabulary, read once."""
    data = tomllib.loads((Path(__file__).parent / "vocabulary.toml").read_text(encoding="utf-8"))
    return Vocabulary(
        greetings=frozenset(data["greetings"]),
        transcript_tags=frozenset(data["transcript_tags"]),
        content_tags=frozenset(data["content_tags"]),
        user_roles=tuple(data["roles"]["user"]),
        assistant_roles=tuple(data["roles"]["assistant"]),
        conversation=_compile(data["conversation"]),
        tasks={kind: _compile(table) for kind, table in data["tasks"].items()},
        limits=_compile(data["limits"]),
        references=_compile(data["references"]),
        units=re.compile("|".join(data["units"]["all"])),
        pictures=_compile(data["pictures"]),
    )


def _compile(table: dict[str, Any]) -> re.Pattern[str]:
    spaced: list[str] = []
    joined: list[str] = []
    for entries in table.values():
        for entry in entries:
            first = _SKIPPED.sub("", entry)[:1]
            (spaced if _SPACED.match(first) else joined).append(entry)
    alternatives = ([rf"\b(?:{_grouped(spaced)})"] if spaced else []) + ([_grouped(joined)] if joined else [])
    return re.compile("|".join(alternatives))


def _grouped(entries: list[str]) -> str:
    """Return the alternatives grouped by their first letter, so that few are tried at each place of a text."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        plain = entry[:1].isalpha() and entry[1:2] not in {"?", "*", "+", "{"}
        groups.setdefault(entry[0] if plain else "", []).append(entry[1:] if plain else entry)
    return "|".join(f"{first}(?:{'|'.join(rest)})" if first else "|".join(rest) for first, rest in groups.items())
