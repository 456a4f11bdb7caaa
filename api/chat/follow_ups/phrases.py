"""Loads the phrases of follow-ups: a TOML file per language, with rules of the form [kind, weight, pattern, limit].

`weight` is a number, or two: for a noun that the earlier pictures do not show, and for one that they do. A pattern
names that noun with the group `noun` (a part of any picture counts too) or `subject` (it does not), and other patterns
of its file with `{name}`. `limit` = most words of the text.
`start` rules match at the beginning of a text, `clause` rules at the beginning of any clause, `anywhere` anywhere.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "phrases"
_NAME = re.compile(r"\{([a-z_]+)\}")
_PLACES = ("start", "clause", "anywhere")
_UNLIMITED = 100_000.0


@dataclass(frozen=True, slots=True)
class Rule:
    """One piece of evidence: positive for a change of an earlier picture, negative for a new picture."""

    kind: str
    weight: float
    known_weight: float
    pattern: re.Pattern[str]
    max_words: float = _UNLIMITED


@dataclass(frozen=True, slots=True)
class Ordinal:
    """How a language names the picture with this number; 0 = the pattern contains it, -1 = the last picture.

    `loose` = it may also count out something inside a picture ("the third one").
    """

    number: int
    pattern: re.Pattern[str]
    loose: bool


@dataclass(frozen=True, slots=True)
class Language:
    """The phrases of one language."""

    name: str
    words: frozenset[str]  # frequent words: they reveal the language of a text in Latin script
    stop_words: frozenset[str]  # words that name nothing in a picture
    lead_in: re.Pattern[str]
    continuation: re.Pattern[str]  # lead-ins such as "but" that continue a conversation
    tail: re.Pattern[str] | None  # polite words at the end of a clause
    remark: re.Pattern[str]  # a whole clause that says nothing about the picture to make ("looks great")
    part: re.Pattern[str]
    rules: dict[str, tuple[Rule, ...]]
    ordinals: tuple["Ordinal", ...]


@cache
def languages() -> dict[str, Language]:
    """Return all languages by their code."""
    data = {path.stem: _load(path.stem) for path in sorted(_FOLDER.glob("*.toml"))}
    return {name: _language(name, fields) for name, fields in data.items() if "lead_in" in fields}


def _load(name: str) -> dict[str, Any]:
    return tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


@cache
def simplified() -> dict[int, int]:
    """Return the table from traditional to simplified characters of the Chinese phrases."""
    data = _load("scripts")
    return str.maketrans(data["traditional"], data["simplified"])


def _language(name: str, data: dict[str, Any]) -> Language:
    """Return a language; its rules are those of its file and of the shared grammar that it names."""
    grammar = _load(data["grammar"]) if "grammar" in data else data
    macros: dict[str, str] = data["patterns"]

    def compiled(pattern: str) -> re.Pattern[str]:
        for _ in range(3):
            pattern = _NAME.sub(lambda match: f"(?:{macros[match[1]]})", pattern)
        return re.compile(pattern, re.IGNORECASE)

    own = data if grammar is not data else {}
    rules = {
        place: tuple(_rule(entry, compiled) for entry in [*grammar.get(place, []), *own.get(place, [])])
        for place in _PLACES
    }
    words = frozenset(data.get("words", "").split())
    nouns = frozenset(data.get("nouns", "").split())
    return Language(
        name=name,
        words=words | nouns,
        stop_words=frozenset(data.get("stop_words", "").split()) | words,
        lead_in=compiled(data["lead_in"]),
        continuation=compiled(data["continuation"]),
        tail=compiled(f"(?:{data['tail']})+$") if "tail" in data else None,
        remark=compiled(data["remark"]),
        part=compiled("{part}"),
        rules=rules,
        ordinals=tuple(Ordinal(n, compiled(pattern), bool(loose)) for n, pattern, *loose in _ordinals(data, grammar)),
    )


def _ordinals(data: dict[str, Any], grammar: dict[str, Any]) -> list[list[Any]]:
    """Return [number, pattern] or [number, pattern, "loose"] of each ordinal."""
    if "ordinals" in data:
        return list(data["ordinals"])
    words = list(enumerate(data["ordinal_words"], 1))
    strict = [[number, grammar["ordinal"].replace("{word}", word)] for number, word in words]
    loose = [[number, grammar["loose_ordinal"].replace("{word}", word), "loose"] for number, word in words]
    return [[0, grammar["number"]], *strict, *loose]


def _rule(entry: list[Any], compiled: Any) -> Rule:
    kind, weight, pattern, *limit = entry
    low, high = weight if isinstance(weight, list) else (weight, weight)
    return Rule(kind, float(low), float(high), compiled(pattern), *map(float, limit))
