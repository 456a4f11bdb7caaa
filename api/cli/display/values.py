"""Values of the API as a person reads them: local times, and ids short enough for a table."""

import re
import time
from typing import Any

SHORT_ID_LENGTH = 8
_FULL_ID = re.compile(r"[a-z]+_[0-9a-f]{32}")
# Unix seconds of the years 2001 to 2286; smaller numbers are durations.
_EARLIEST, _LATEST = 1e9, 1e10


def short_id(text: str) -> str:
    """Return the last digits of a full id, which commands accept in its place; other texts stay."""
    return text[-SHORT_ID_LENGTH:] if _FULL_ID.fullmatch(text) else text


def local_time(seconds: float) -> str:
    """Return unix seconds as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def describe(value: Any, name: str = "", *, short_ids: bool = False) -> str:
    """Return a value of the field `name` in one line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(describe(each, name, short_ids=short_ids) for each in value) or "-"
    if isinstance(value, dict):
        fields = ((key, one) for key, one in value.items() if one is not None)
        return ", ".join(f"{key}: {describe(one, key, short_ids=short_ids)}" for key, one in fields) or "-"
    if _is_time(value, name):
        return local_time(value)
    text = str(value).replace("\n", " ")
    return short_id(text) if short_ids else text


def is_quantity(value: Any, name: str) -> bool:
    """Return whether a value is a number to compare with others, and not a time or a truth."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not _is_time(value, name)


def _is_time(value: Any, name: str) -> bool:
    is_named = name in {"at", "until", "since"} or name.endswith(("_at", "_until", "_since"))
    return is_named and isinstance(value, int | float) and _EARLIEST < value < _LATEST
