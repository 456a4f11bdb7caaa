"""Bring the fields of a body into one form: names by the table in `field_names.py`, values of sizes, ratios and seeds.

A size may be pixels, a ratio, a resolution, a word or an object, and clients put each of them into any field about the
size. Here each value goes to the field that the schemas have for it. What a model supports is checked later.
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from api.http.bodies.field_names import (
    AUTOMATIC,
    CANONICAL,
    CONTAINERS,
    FOLLOWS_INPUT,
    OPTIONAL,
    RANDOM_SEEDS,
    RATIO_WORDS,
    SIZE_FORMS,
    VALUE_WORDS,
    snake_case,
)
from api.http.bodies.json_shape import parse_json
from worker.core.errors import DreameryError

Fields = dict[str, Any]
_MAX_DEPTH = 4
# Sides up to this are a ratio (`16:9`, `16x9`), larger ones are pixels (`1280:720`).
_MAX_RATIO_SIDE = 63
_PAIR = re.compile(r"([1-9][0-9]{0,4}) ?[x×*:：/,] ?([1-9][0-9]{0,4})")
_RESOLUTION = re.compile(r"([1-9][0-9]?(?:\.[0-9])?k|[1-9][0-9]{2,3}p)")
_LINES = frozenset({"480", "540", "720", "1080", "1440", "2160"})


@dataclass(slots=True)
class UnifiedFields:
    """The fields by the names of the schemas, and under which name the client sent each renamed one."""

    fields: Fields
    sent_names: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Entry:
    sent_name: str
    name: str
    value: Any


def unify_fields(body: Fields, known: Collection[str]) -> UnifiedFields:
    """Return the body with the field names in `known`. Raises `invalid_value` for spellings that contradict each other.

    Fields that are not known stay as they are. Empty texts of fields in the table count as absent.
    """
    result = UnifiedFields({})
    for entry in _entries(body, known):
        for name, value in _canonical_values(entry, known):
            _add(result, name, value, entry.sent_name)
    return result


def _entries(body: Fields, known: Collection[str], prefix: str = "", depth: int = 0) -> Iterator[_Entry]:
    """Yield the fields of the body and of its containers, the outer ones first."""
    nested: list[tuple[str, Fields]] = []
    for key, value in body.items():
        snake = snake_case(key)
        is_container = snake in CONTAINERS and snake not in known and depth < _MAX_DEPTH
        if is_container and (inner := _parse_object(value)) is not None:
            nested.append((f"{prefix}{key}.", inner))
            continue
        name = next((one for one in (CANONICAL.get(snake, snake), snake) if one in known), key)
        yield _Entry(f"{prefix}{key}", name, value)
    for inner_prefix, inner in nested:
        yield from _entries(inner, known, inner_prefix, depth + 1)


def _parse_object(value: Any) -> Fields | None:
    """Return an object, also one that a form sends as JSON text; None for other values."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = parse_json(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _canonical_values(entry: _Entry, known: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield the fields that an entry sets: none for an empty one, two for a size with width and height."""
    if entry.name in OPTIONAL and entry.name in known and entry.value in ("", None):
        return
    convert = _CONVERTERS.get(entry.name) if entry.name in known else None
    for name, value in convert(entry) if convert else ((entry.name, entry.value),):
        yield (name, value) if name in known or name == entry.name else (entry.name, entry.value)


def _add(result: UnifiedFields, name: str, value: Any, sent_name: str) -> None:
    earlier = result.fields.get(name)
    if earlier is not None and not _is_automatic(earlier) and name in CANONICAL:
        if not _is_automatic(value) and str(earlier).strip().lower() != str(value).strip().lower():
            first = result.sent_names.get(name, name)
            message = f"`{first}` and `{sent_name}` differ: {str(earlier)[:20]!r} and {str(value)[:20]!r}. Send one."
            raise DreameryError("invalid_value", message, param=sent_name)
        return
    if earlier is not None and name not in CANONICAL:
        return  # outer fields count more than those of containers
    result.fields[name] = value
    if name == sent_name:
        result.sent_names.pop(name, None)
    else:
        result.sent_names[name] = sent_name


def _is_automatic(value: Any) -> bool:
    return isinstance(value, str) and value.strip().lower() in AUTOMATIC | FOLLOWS_INPUT


def _size_values(entry: _Entry) -> Iterator[tuple[str, Any]]:
    """A size, ratio or resolution -> the field that it is: pixels, ratio, resolution or a word."""
    value = _parse_object(entry.value) or entry.value
    if isinstance(value, dict):
        sides = {snake_case(str(key)): side for key, side in value.items()}
        if not {"width", "height"} <= set(sides):
            raise _not_understood(entry)
        yield "width", sides["width"]
        yield "height", sides["height"]
        return
    if isinstance(value, list | tuple) and len(value) == 2:
        value = f"{value[0]}x{value[1]}"
    if isinstance(value, int) and not isinstance(value, bool) and str(value) in _LINES:
        value = f"{value}p"
    if not isinstance(value, str):
        raise _not_understood(entry)
    yield _size_text(entry.name, value)


def _size_text(name: str, sent: str) -> tuple[str, str]:
    text = re.sub(r"\s+", " ", sent.strip().lower())
    word = RATIO_WORDS.get(snake_case(text))
    pair = _PAIR.fullmatch(text)
    if word is not None:
        return "ratio", word
    if pair is not None and max(int(pair[1]), int(pair[2])) <= _MAX_RATIO_SIDE:
        return "ratio", f"{pair[1]}:{pair[2]}"
    if pair is not None:
        return "size", f"{pair[1]}x{pair[2]}"
    if _RESOLUTION.fullmatch(text.replace(" ", "")):
        return "resolution", text.replace(" ", "")
    if text in _LINES:
        return "resolution", f"{text}p"
    return name, sent


def _not_understood(entry: _Entry) -> DreameryError:
    message = f"`{entry.sent_name}` must be {SIZE_FORMS}, or an object with `width` and `height`."
    return DreameryError("invalid_value", message, param=entry.sent_name)


def _quality_values(entry: _Entry) -> Iterator[tuple[str, Any]]:
    """A quality such as `2k` or `1080p` is a resolution; the schema knows the other words."""
    if isinstance(entry.value, str) and _RESOLUTION.fullmatch(entry.value.strip().lower()):
        yield "resolution", entry.value.strip().lower()
    else:
        yield entry.name, entry.value


def _seed_values(entry: _Entry) -> Iterator[tuple[str, Any]]:
    if str(entry.value).strip().lower() not in RANDOM_SEEDS:
        yield entry.name, entry.value


def _word_values(entry: _Entry) -> Iterator[tuple[str, Any]]:
    words = VALUE_WORDS[entry.name]
    yield (
        entry.name,
        words.get(entry.value.strip().lower(), entry.value) if isinstance(entry.value, str) else entry.value,
    )


def _object_values(entry: _Entry) -> Iterator[tuple[str, Any]]:
    """An object that a form may send as JSON text."""
    yield entry.name, entry.value if (value := _parse_object(entry.value)) is None else value


_CONVERTERS: dict[str, Callable[[_Entry], Iterator[tuple[str, Any]]]] = {
    **dict.fromkeys(("size", "ratio", "resolution"), _size_values),
    "quality": _quality_values,
    "seed": _seed_values,
    "metadata": _object_values,
    **dict.fromkeys(VALUE_WORDS, _word_values),
}
