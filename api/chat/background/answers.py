"""Answers of background calls, made from the conversation itself without a model."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# Flags, Markdown, links, tags and sandbox scripts are not part of a title.
_MARKUP = re.compile(
    r"!\[[^\[\]]{0,500}\]\([^()\s]*\)|\[([^\[\]]{0,500})\]\([^()\s]*\)|\[\[[^\[\]]*\]\]|<[^<>]{1,200}>|[`*_#>|]+"
)
_FLAG = re.compile(r"(?<!\S)-(?:re|ra|d)\s+\S+", re.IGNORECASE)
_MAX_TITLE_WORDS = 6
_MAX_TITLE_CHARS = 48
_MAX_QUOTED = 300
_MAX_DEPTH = 8
_DEFAULT_TITLE = "New chat"
# The keys of the JSON that Open WebUI's tasks ask for, which other templates have copied.
_KEYS = ("title", "tags", "follow_ups", "queries", "prompt", "text")
_KEY = re.compile(r"[\"'](" + "|".join(_KEYS) + r")[\"']\s*:")
_JSON = re.compile(r"\bJSON\b", re.IGNORECASE)
_LISTS: dict[str, list[str]] = {"tags": ["Pictures"], "follow_ups": [], "queries": [], "memory": []}
_TITLE_KEYS = frozenset({"title", "topic", "name", "headline"})

NOTHING_GENERATED = (
    "Nothing was generated: this model only generates images or videos, and this request is meant for a language "
    "model. Describe what to generate, or send the header `X-Dreamery-Job: always`."
)


@dataclass(frozen=True, slots=True)
class Words:
    """What the user wrote: the first and the newest message, without the instruction."""

    first: str
    newest: str


def make_answer(kind: str, words: Words, instruction: str) -> str:
    """Return the answer of a kind: JSON if the instruction asks for a list or for one of the usual keys, else text."""
    if match := _KEY.search(instruction):
        return _json_of_key(match[1], words)
    if kind in _LISTS and _JSON.search(instruction):
        return json.dumps(_LISTS[kind])
    return _ANSWERS.get(kind, _no_answer)(words)


def fill_answer(template: Any, words: Words) -> str:
    """Return the answer of a rule: its text, or its value as JSON."""
    filled = _fill(template, words)
    return filled if isinstance(filled, str) else json.dumps(filled, ensure_ascii=False)


def answer_of_schema(schema: Any, words: Words) -> str:
    """Return the smallest value of a JSON schema as JSON; titles and names in it get the title."""
    return json.dumps(_smallest_value(schema, words, depth=0), ensure_ascii=False)


def make_title(text: str) -> str:
    """Return a title from the first words of a text; scripts without spaces are cut by characters."""
    plain = " ".join(_FLAG.sub(" ", _MARKUP.sub(r" \1 ", text[:2000])).split())
    title = ""
    for word in plain.split(" ")[:_MAX_TITLE_WORDS]:
        if title and len(title) + len(word) >= _MAX_TITLE_CHARS:
            break
        title = f"{title} {word}".strip()
    title = title[: _MAX_TITLE_CHARS if title.isascii() else _MAX_TITLE_CHARS // 2]
    title = title.strip(" .,;:!?，。；：！？\"'“”")
    return title[:1].upper() + title[1:] if title else _DEFAULT_TITLE


def _summary(words: Words) -> str:
    newest = " ".join(words.newest.split())[:_MAX_QUOTED]
    return f"The user asked for images. The newest request: {newest}" if newest else "The user asked for images."


def _no_answer(_words: Words) -> str:
    return NOTHING_GENERATED


_ANSWERS: dict[str, Callable[[Words], str]] = {
    "title": lambda words: make_title(words.first),
    "tags": lambda _: "Pictures",
    "follow_ups": lambda _: "",
    "queries": lambda words: words.newest,
    "summary": _summary,
    "memory": lambda _: "",
    "emoji": lambda _: "🖼️",
    "autocomplete": lambda _: "",
    "prompt": lambda words: words.newest,
    "language": lambda _: "unknown",
    "test": lambda _: "ok",
}


def _json_of_key(key: str, words: Words) -> str:
    values: dict[str, Any] = {
        "title": make_title(words.first),
        "tags": ["Pictures"],
        "prompt": words.newest,
        "text": "",
    }
    return json.dumps({key: values.get(key, [])}, ensure_ascii=False)


def _fill(template: Any, words: Words) -> Any:
    if isinstance(template, str):
        return template.replace("{title}", make_title(words.first)).replace("{newest}", words.newest)
    if isinstance(template, dict):
        return {key: _fill(value, words) for key, value in template.items()}
    if isinstance(template, Sequence):
        return [_fill(value, words) for value in template]
    return template


def _smallest_value(schema: Any, words: Words, *, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return None
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    properties = schema.get("properties")
    if kind == "object" or isinstance(properties, dict):
        fields = properties if isinstance(properties, dict) else {}
        return {
            name: make_title(words.first) if name in _TITLE_KEYS else _smallest_value(value, words, depth=depth + 1)
            for name, value in fields.items()
        }
    return {"string": "", "array": [], "number": 0, "integer": 0, "boolean": False}.get(str(kind))
