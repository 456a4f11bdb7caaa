"""The form of background rules: `api/chat/background/rules.toml` and the operator's `DREAMERY_BACKGROUND_RULES_FILE`.

A `[[rule]]` describes a background call of a chat front end (a title, tags, a connection test); a `[[block]]` describes
text that a front end adds to a message, which is not part of the prompt. Every error names the file, the entry and the
field. See docs/clients.md.
"""

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = (
    "title",
    "tags",
    "follow_ups",
    "queries",
    "summary",
    "memory",
    "translation",
    "merge",
    "emoji",
    "autocomplete",
    "prompt",
    "language",
    "classification",
    "test",
    "task",
)
# The system messages, the last user message, the last message of any role, and all of these.
_TEXT_CONDITIONS = ("system", "user", "last", "anywhere")
_LIMITS = ("max_tokens_up_to", "temperature_up_to")
_FLAGS = ("transcript", "json")
_RULE_FIELDS = (
    "id",
    "front_end",
    "kind",
    "source",
    *_TEXT_CONDITIONS,
    *(f"{name}_pattern" for name in _TEXT_CONDITIONS),
    *_LIMITS,
    *_FLAGS,
    "answer",
    "content_after",
)
_BLOCK_FIELDS = ("id", "front_end", "source", "tag", "unwrap", "start", "end", "kept_after", "kept_before")
_MAX_PATTERN = 500


class BackgroundRulesError(ValueError):
    """The file is invalid; the message says where."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of background call. All given conditions must hold; a text condition holds if one of its texts occurs.

    Texts are compared without case and with single spaces. `answer` is a text, or a value that is sent as JSON, with
    the placeholders `{title}` and `{newest}`. The user's own text follows `content_after`.
    """

    id: str
    front_end: str
    kind: str
    source: str
    texts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    patterns: dict[str, re.Pattern[str]] = field(default_factory=dict)
    max_tokens_up_to: int | None = None
    temperature_up_to: float | None = None
    transcript: bool = False
    json: bool = False
    answer: Any = None
    content_after: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """Text of a front end inside a message: a tag, or all text from `start` to `end`.

    `unwrap` removes only the tags and keeps their content. The text between `kept_after` and `kept_before` is kept.
    """

    id: str
    front_end: str
    source: str
    tag: str = ""
    unwrap: bool = False
    start: str = ""
    end: str = ""
    kept_after: str = ""
    kept_before: str = ""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules in the order in which they are tried, and blocks."""

    rules: tuple[Rule, ...] = ()
    blocks: tuple[Block, ...] = ()


def check(path: Path | None) -> None:
    """Raise `BackgroundRulesError` if the file is invalid."""
    if path is not None:
        load(path)


def load(path: Path) -> RuleSet:
    """Return the rules and blocks of a file. Raises `BackgroundRulesError`."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BackgroundRulesError(f"{path}: cannot be read ({error.strerror}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BackgroundRulesError(f"{path}: is not TOML: {error}.") from None
    reader = _Reader(path)
    for name in content:
        if name not in {"rule", "block"}:
            raise reader.error(name, "is unknown; allowed are [[rule]] and [[block]]")
    return RuleSet(
        rules=tuple(reader.rule(where, row) for where, row in reader.rows(content, "rule", _RULE_FIELDS)),
        blocks=tuple(reader.block(where, row) for where, row in reader.rows(content, "block", _BLOCK_FIELDS)),
    )


def normalized(text: str) -> str:
    """Return a text in the form in which texts are compared: case folded, with single spaces."""
    return " ".join(text.casefold().split())


class _Reader:
    """Reads the entries of one file, and formats its error messages."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def error(self, where: str, reason: str) -> BackgroundRulesError:
        return BackgroundRulesError(f"{self.path}: {where}: {reason}.")

    def rows(self, content: dict[str, Any], name: str, allowed: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
        """Return the entries with their names for messages. Ids are unique, and no field is unknown."""
        rows = content.get(name, [])
        if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
            raise self.error(name, f"must be a list of tables, each written [[{name}]]")
        found: dict[str, dict[str, Any]] = {}
        for number, row in enumerate(rows, start=1):
            row_id = self.text(f"{name} number {number}", row, "id")
            where = f"{name} {row_id!r}"
            if where in found:
                raise self.error(where, "the id is used twice")
            if unknown := [key for key in row if key not in allowed]:
                raise self.error(f"{where}, field {unknown[0]!r}", f"is unknown; allowed are {', '.join(allowed)}")
            found[where] = row
        return list(found.items())

    def rule(self, where: str, row: dict[str, Any]) -> Rule:
        kind = self.text(where, row, "kind")
        if kind not in KINDS:
            raise self.error(f"{where}, field 'kind'", f"{kind!r} is unknown; allowed are {', '.join(KINDS)}")
        texts = {name: self.texts(where, row, name) for name in _TEXT_CONDITIONS if name in row}
        patterns = {name: self.pattern(where, row, f"{name}_pattern") for name in _TEXT_CONDITIONS}
        rule = Rule(
            id=str(row["id"]),
            front_end=self.text(where, row, "front_end"),
            kind=kind,
            source=self.text(where, row, "source"),
            texts=texts,
            patterns={name: pattern for name, pattern in patterns.items() if pattern is not None},
            max_tokens_up_to=self.number(where, row, "max_tokens_up_to", int),
            temperature_up_to=self.number(where, row, "temperature_up_to", float),
            transcript=self.flag(where, row, "transcript"),
            json=self.flag(where, row, "json"),
            answer=row.get("answer"),
            content_after=self.text(where, row, "content_after", required=False),
        )
        if not (rule.texts or rule.patterns):
            names = ", ".join(f"{name!r}" for name in _TEXT_CONDITIONS)
            raise self.error(where, f"needs at least one condition on a text: {names} or their '..._pattern'")
        return rule

    def block(self, where: str, row: dict[str, Any]) -> Block:
        texts = {name: self.text(where, row, name, required=False) for name in _BLOCK_FIELDS if name != "unwrap"}
        block = Block(**texts, unwrap=self.flag(where, row, "unwrap"))
        if bool(block.tag) == bool(block.start):
            raise self.error(where, "needs either 'tag' or 'start'")
        if block.tag and not re.fullmatch(r"[\w.:-]{1,60}", block.tag):
            raise self.error(f"{where}, field 'tag'", f"must be the name of a tag without brackets; got {block.tag!r}")
        if block.start and not (block.end or block.kept_after):
            raise self.error(where, "has 'start' and also needs 'end' or 'kept_after'")
        return block

    def text(self, where: str, row: dict[str, Any], name: str, *, required: bool = True) -> str:
        value = row.get(name, "")
        if not isinstance(value, str) or (required and not value.strip()):
            raise self.error(f"{where}, field {name!r}", "must be a string")
        return value

    def texts(self, where: str, row: dict[str, Any], name: str) -> tuple[str, ...]:
        value = row[name]
        values = [value] if isinstance(value, str) else value
        if not (isinstance(values, list) and values and all(isinstance(one, str) and one.strip() for one in values)):
            raise self.error(f"{where}, field {name!r}", "must be a string or a list of strings")
        return tuple(normalized(one) for one in values)

    def pattern(self, where: str, row: dict[str, Any], name: str) -> re.Pattern[str] | None:
        value = self.text(where, row, name, required=False)
        if not value:
            return None
        if len(value) > _MAX_PATTERN:
            raise self.error(f"{where}, field {name!r}", f"must have at most {_MAX_PATTERN} characters")
        try:
            return re.compile(value, re.IGNORECASE | re.DOTALL)
        except re.error as error:
            raise self.error(f"{where}, field {name!r}", f"is not a regular expression: {error}") from None

    def number(self, where: str, row: dict[str, Any], name: str, kind: type) -> Any:
        value = row.get(name)
        if value is None:
            return None
        allowed = (int,) if kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed) or value < 0:
            raise self.error(f"{where}, field {name!r}", f"must be a number, 0 or more; got {value!r}")
        return value

    def flag(self, where: str, row: dict[str, Any], name: str) -> bool:
        value = row.get(name, False)
        if not isinstance(value, bool):
            raise self.error(f"{where}, field {name!r}", f"must be true or false; got {value!r}")
        return value
