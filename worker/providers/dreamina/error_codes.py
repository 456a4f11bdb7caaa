"""Upstream's ways to say no -> rows of our error table. The data is `faults.toml` (protocol sections 3.2 to 3.4)."""

import tomllib
from pathlib import Path
from typing import Any

from worker.core.errors import ERRORS

_DATA: dict[str, Any] = tomllib.loads((Path(__file__).parent / "faults.toml").read_text(encoding="utf-8"))
CODES: dict[str, str] = {str(number): ours for ours, numbers in _DATA["codes"].items() for number in numbers}
KEYS: dict[str, str] = _DATA["keys"]
TEXTS: dict[str, str] = _DATA["texts"]
_GATE = frozenset(str(number) for number in _DATA["gate"]["ret"])
# Codes that say only "it did not work": a text key beside them knows more.
_VAGUE = frozenset({None, "upstream_error", "generation_failed"})
_TEXT_MAX = 300
# A shorter session is a word of the sandbox, and would blank parts of other words.
_SECRET_MIN = 8


def fault_for(ret: str, fail_code: str, starling_key: str, text: str) -> str:
    """The code of our error table. Pass "" for what the answer did not hold.

    Order: a `ret` that stopped the request at the door, the `fail_code` (more exact than the `ret` around it), the
    `ret`, then the text key, then hints in the message.
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
    """Our message with upstream's own words as its tail, cleaned of control characters and of the session id."""
    tail = clean(upstream_text, secret=secret)
    message = ERRORS[code].message
    return f"{message} Upstream: {tail}" if tail else message


def clean(text: str, *, secret: str = "") -> str:
    """Foreign text made fit for people and logs: one line, printable, short, without the secret."""
    if len(secret) >= _SECRET_MIN:
        text = text.replace(secret, "[hidden]")
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: _TEXT_MAX * 2]).split())
    return line[:_TEXT_MAX]


def _first_part(table: dict[str, str], text: str) -> str | None:
    lowered = text.lower()
    return next((code for part, code in table.items() if part in lowered), None) if lowered else None
