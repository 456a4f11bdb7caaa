"""Flags in prompts, as other gateways support them: `-re 2k`, `-ra 16:9`, `-d 5`, `比例 16:9`.

Only marked words are flags: a bare `2k` stays text. Sandbox scripts (`[[...]]`) are text, and so is a quotation: it is
drawn as it stands. The allowed values depend on the model: `Flags.choose` checks them, and its error lists them.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from worker.core.errors import DreameryError

_NAMES = {"re": "resolution", "ra": "ratio", "d": "duration"}
_FLAG_NAMES = {name: f"-{flag}" for flag, name in _NAMES.items()}
# Straight quotes open after a space or a bracket and close before one, so that `5" wide` and `don't` quote nothing.
_QUOTES = {
    "\u201c": "\u201d",
    "\u2018": "\u2019",
    "「": "」",
    "『": "』",
    "«": "»",
    "„": "\u201c\u201d",
    "《": "》",
    "〈": "〉",
    "‹": "›",
}
_DECADE = re.compile(r"'\d0s\b")
_STRAIGHT = "\"'＂`"
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
# Chinese has no spaces between words, so a flag may touch its characters; in other scripts a flag is separate from
# words (`pre-re` is not a flag). Possessive quantifiers keep the time for hostile prompts linear.
_FLAG = re.compile(
    rf"""(?P<script>\[\[[^\[\]]*+\]\])
    | (?<![^\W{_CJK}])(?<![-－])-(?P<name>re|ra|d)(?:\s*+[:：=]\s*+|\s++|$)
        (?P<value>[^\s{_CJK}\[\](),，。;；、!！?？"'“”]*+)(?P<unit>(?:秒)?+)
    | 比例(?:\s*+[:：])?\s*+(?P<ratio>\d++\s*+[:：]\s*+\d++)(?![:：\d])""",
    re.IGNORECASE | re.VERBOSE,
)
# Removing a flag can join two halves of another one, so the prompt is parsed again a few times.
_MAX_PASSES = 4


# "Continuous", "picture book", "story", or a number of sheets.
_SERIES = re.compile(r"连续|绘本|故事|(?P<number>\d{1,4})\s*张")
_SERIES_DEFAULT, _SERIES_MAX = 4, 15


def requested_series_count(prompt: str) -> int | None:
    """Return the number of images if a prompt requests a series, otherwise None."""
    matches = list(_SERIES.finditer(prompt))
    if not matches:
        return None
    number = next((int(match["number"]) for match in matches if match["number"]), 0)
    return min(number, _SERIES_MAX) or _SERIES_DEFAULT


@dataclass(frozen=True, slots=True)
class Flags:
    """A prompt without its flags, and their values by name: `resolution`, `ratio`, `duration`, in lower case."""

    prompt: str
    values: dict[str, str] = field(default_factory=dict)

    def choose(self, name: str, allowed: Iterable[str]) -> str | None:
        """Return the value of a flag, or None without it. Raises `invalid_value`, which lists the allowed values."""
        value, options = self.values.get(name), list(allowed)
        if value is None or value in options:
            return value
        actual = f"got {value[:20]!r}" if value else "it has no value"
        message = f"`{_FLAG_NAMES[name]}` in the prompt must be one of {', '.join(options)}; {actual}."
        raise DreameryError("invalid_value", message, param="prompt")

    def reject(self, name: str, reason: str) -> None:
        """Raise `unsupported_parameter` if the prompt has this flag. `reason` is a sentence for the message."""
        if name in self.values:
            message = f"`{_FLAG_NAMES[name]}` in the prompt: {reason} Remove it."
            raise DreameryError("unsupported_parameter", message, param="prompt")


def parse_flags(prompt: str) -> Flags:
    """Remove the flags from a prompt. Raises `invalid_value` for contradicting flags or a prompt with only flags."""
    values: dict[str, str] = {}
    rest = prompt
    for _ in range(_MAX_PASSES):
        stripped = _remove_flags(rest, values)
        if stripped == rest:
            break
        rest = stripped
    else:
        raise DreameryError("invalid_value", "The flags in the prompt are nested. Write each one once.", param="prompt")
    if values and not rest:
        message = "The prompt contains only flags. Describe what to generate."
        raise DreameryError("invalid_value", message, param="prompt")
    return Flags(prompt=rest, values=values)


def _quotations(prompt: str) -> list[tuple[int, int]]:
    """Return the start and end of each quotation that is closed."""
    found: list[tuple[int, int]] = []
    position = 0
    # Where each closing mark was not found any more, so that many opening marks cost no more than one.
    unclosed: set[str] = set()
    while position < len(prompt):
        mark = prompt[position]
        closing = mark if mark in _STRAIGHT else _QUOTES.get(mark)
        if closing is None or closing in unclosed or (mark in _STRAIGHT and not _opens(prompt, position)):
            position += 1
            continue
        end = _closing_position(prompt, position + 1, closing)
        if end < 0:
            unclosed.add(closing)
        else:
            found.append((position, end + 1))
        position = end + 1 if end >= 0 else position + 1
    return found


def _is_inside(quotations: list[tuple[int, int]], position: int) -> bool:
    index = bisect_right(quotations, position, key=lambda quotation: quotation[0]) - 1
    return index >= 0 and quotations[index][0] <= position < quotations[index][1]


def _opens(prompt: str, position: int) -> bool:
    before, after = prompt[position - 1 : position] if position else "", prompt[position + 1 : position + 2]
    decade = _DECADE.match(prompt, position) is not None
    return not decade and not (before.isascii() and before.isalnum()) and bool(after) and not after.isspace()


def _closing_position(prompt: str, start: int, closing: str) -> int:
    """Return where a quotation ends, or -1. A straight quote closes behind a character that is no space."""
    for position in range(start, len(prompt)):
        if prompt[position] not in closing:
            continue
        after = prompt[position + 1 : position + 2]
        straight = closing in _STRAIGHT
        if not straight or (position > start and not (after.isascii() and after.isalnum())):
            return position
    return -1


def _remove_flags(prompt: str, values: dict[str, str]) -> str:
    end = 0
    pieces: list[str] = []
    quotations = _quotations(prompt)
    for match in _FLAG.finditer(prompt):
        if match["script"] or _is_inside(quotations, match.start()):
            continue
        start, after = _record_value(match, values), _value_end(match)
        text = prompt[end:start]
        if not prompt[after : after + 1].isalnum():
            text = text.rstrip()
        elif text and not text[-1].isspace():
            # Words that were separated by the flag only stay separate.
            text += " "
        pieces.append(text)
        end = after
    return ("".join(pieces) + prompt[end:]).strip() if pieces else prompt


def _value_end(match: "re.Match[str]") -> int:
    """Return the end of a flag. A full stop after the value belongs to the sentence."""
    if match["name"] is None or match["unit"]:
        return match.end()
    value = match["value"]
    return match.end() - (len(value) - len(value.rstrip(".")))


def _record_value(match: "re.Match[str]", values: dict[str, str]) -> int:
    """Record the value of a match and return its start."""
    name = _NAMES[match["name"].lower()] if match["name"] else "ratio"
    raw = match["value"].rstrip(".") if match["name"] else re.sub(r"\s", "", match["ratio"])
    value = unicodedata.normalize("NFKC", raw).lower()
    if name == "duration" and re.fullmatch(r"[0-9]+s", value):
        value = value[:-1]
    if values.setdefault(name, value) != value:
        message = (
            f"The prompt contains `{_FLAG_NAMES[name]}` twice: {values[name][:20]!r} and {value[:20]!r}. Keep one."
        )
        raise DreameryError("invalid_value", message, param="prompt")
    return match.start()
