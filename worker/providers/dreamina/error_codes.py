"""Maps upstream's errors to our error table, with the data of `faults.toml` (protocol sections 3.2 to 3.4)."""

import tomllib
from pathlib import Path
from typing import Any

from worker.core.errors import ERRORS

_DATA: dict[str, Any] = tomllib.loads((Path(__file__).parent / "faults.toml").read_text(encoding="utf-8"))
CODES: dict[str, str] = {str(number): ours for ours, numbers in _DATA["codes"].items() for number in numbers}
KEYS: dict[str, str] = _DATA["keys"]
TEXTS: dict[str, str] = _DATA["texts"]
_GATE = frozenset(str(number) for number in _DATA["gate"]["ret"])
# Unspecific codes: a text key next to them is more exact.
_VAGUE = frozenset({None, "upstream_error", "generation_failed"})
_MAX_TEXT_CHARS = 300
# A shorter session is a sandbox name; hiding it would blank parts of ordinary words.
_MIN_SECRET_CHARS = 8


def error_code_for(ret: str, fail_code: str, starling_key: str, text: str) -> str:
    """Return the code of our error table. Pass "" for fields that the response does not have.

    Precedence: a `ret` of the gateway, the `fail_code` (more exact than the `ret` around it), the `ret`, the text key,
    then hints in the message.
    """
    if ret in _GATE:
        return CODES[ret]
    by_number = [CODES.get(fail_code), CODES.get(ret)]
    exact = next((code for code in by_number if code not in _VAGUE), None)
    vague = next((code for code in by_number if code), None)
    return (
        exact
        or _first_part(KEYS, starling_key)
        or _first_part(TEXTS, text)
        or vague
        or ("upstream_error" if ret else "generation_failed")
    )


def message_for(code: str, upstream_text: str, *, secret: str = "") -> str:
    """Return our message followed by upstream's text, without control characters and the session id."""
    tail = clean(upstream_text, secret=secret)
    message = ERRORS[code].message
    return f"{message} Upstream: {tail}" if tail else message


def clean(text: str, *, secret: str = "") -> str:
    """Return upstream's text as one short printable line without the secret."""
    if len(secret) >= _MIN_SECRET_CHARS:
        text = text.replace(secret, "[hidden]")
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: _MAX_TEXT_CHARS * 2]).split())
    return line[:_MAX_TEXT_CHARS]


def _first_part(table: dict[str, str], text: str) -> str | None:
    lowered = text.lower()
    return next((code for part, code in table.items() if part in lowered), None) if lowered else None
