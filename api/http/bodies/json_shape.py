"""Parse JSON of clients after its values and its depth were counted: objects take much more memory than their text."""

import json
import re
from typing import Any

from worker.core.errors import DreameryError

MAX_VALUES = 50_000
MAX_DEPTH = 100
# Rough size of one parsed value in bytes, with its place in a list or object, and as an input of a request.
_BYTES_PER_VALUE = 300
# A string as one token, also one without an end; possessive, so that no text is read twice.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)


def parse_json(text: str) -> Any:
    """Parse JSON. Raises DreameryError for too many values or levels, ValueError for text that is not JSON."""
    check_shape(text)
    return json.loads(text)


def check_shape(text: str) -> None:
    """Raise `request_too_large` or `invalid_json` for JSON with too many values or levels, valid or not."""
    opening = text.count("[") + text.count("{")
    # Brackets within strings are counted here too, so most texts need no closer look.
    if opening <= MAX_DEPTH and opening + text.count(",") < MAX_VALUES:
        return
    values = strings = depth = 0
    for match in _TOKEN.finditer(text):
        first = match[0][0]
        if first == '"':
            strings += 1
        elif first in "]}":
            depth -= 1
        else:
            values += 1
            depth += first != ","
        if depth > MAX_DEPTH:
            raise DreameryError("invalid_json", f"The body is not valid JSON: more than {MAX_DEPTH} levels.")
        if values >= MAX_VALUES or strings > 2 * MAX_VALUES:
            message = f"The JSON has more than {MAX_VALUES} values. Send files as base64 or as parts of a form."
            raise DreameryError("request_too_large", message)


def parsed_size(text: str) -> int:
    """Return the memory in bytes that the parsed form of a JSON text takes at most, roughly."""
    width = 1 if text.isascii() else 4
    return width * len(text) + _BYTES_PER_VALUE * min(MAX_VALUES, sum(map(text.count, ',[{"')))
