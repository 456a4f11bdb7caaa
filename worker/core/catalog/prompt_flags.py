"""Flags that people of other gateways write into their prompts: `-re 2k`, `-ra 16:9`, `-d 5`, `比例 16:9`.

Only marked words are flags: a bare `2k` stays prose. Sandbox scripts (`[[...]]`) are left alone. What a value may be is
the model's matter: `Flags.choose` checks it, and its error names the allowed ones.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

from worker.core.errors import DreameryError

_NAMES = {"re": "resolution", "ra": "ratio", "d": "duration"}
_WRITTEN = {name: f"-{flag}" for flag, name in _NAMES.items()}
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
# Chinese is written without spaces, so a flag may follow or precede its letters directly; in other scripts a flag
# stands apart from words (`pre-re` is none). Possessive quantifiers keep hostile prompts linear.
_FLAG = re.compile(
    rf"""(?P<script>\[\[[^\[\]]*+\]\])
    | (?<![^\W{_CJK}])(?<![-－])-(?P<name>re|ra|d)(?:\s*+[:：=]\s*+|\s++|$)
        (?P<value>[^\s{_CJK}\[\](),，。;；、!！?？"'“”]*+)(?P<unit>(?:秒)?+)
    | 比例(?:\s*+[:：])?\s*+(?P<ratio>\d++\s*+[:：]\s*+\d++)(?![:：\d])""",
    re.IGNORECASE | re.VERBOSE,
)
# Taking a flag out can bring two halves of another together; nobody writes more than a few on purpose.
_MOST_PASSES = 4


# "Continuous", "picture book", "story", or a number of sheets (protocol section 6.7).
_SERIES = re.compile(r"连续|绘本|故事|(?P<number>\d{1,4})\s*张")
_SERIES_DEFAULT, _SERIES_MOST = 4, 15


def series_asked(prompt: str) -> int | None:
    """How many pictures a prompt asks for that wants a series of different ones; None = it wants no series."""
    found = list(_SERIES.finditer(prompt))
    if not found:
        return None
    number = next((int(match["number"]) for match in found if match["number"]), 0)
    return min(number, _SERIES_MOST) or _SERIES_DEFAULT


@dataclass(frozen=True, slots=True)
class Flags:
    """A prompt without its flags, and what they said: `resolution`, `ratio`, `duration`, as plain lower-case text."""

    prompt: str
    found: dict[str, str] = field(default_factory=dict)

    def choose(self, name: str, allowed: Iterable[str]) -> str | None:
        """The flag's value; None when it was not written. Raises `invalid_value` naming the allowed ones."""
        value, options = self.found.get(name), list(allowed)
        if value is None or value in options:
            return value
        said = f"got {value[:20]!r}" if value else "it has no value"
        message = f"`{_WRITTEN[name]}` in the prompt must be one of {', '.join(options)}; {said}."
        raise DreameryError("invalid_value", message, param="prompt")

    def refuse(self, name: str, why: str) -> None:
        """Raise `unsupported_parameter` when a flag was written that makes no sense here."""
        if name in self.found:
            message = f"`{_WRITTEN[name]}` in the prompt: {why} Take it out."
            raise DreameryError("unsupported_parameter", message, param="prompt")


def read_flags(prompt: str) -> Flags:
    """Take the flags out of a prompt. Raises `invalid_value` for flags that contradict each other or leave nothing."""
    found: dict[str, str] = {}
    rest = prompt
    for _ in range(_MOST_PASSES):
        stripped = _pass(rest, found)
        if stripped == rest:
            break
        rest = stripped
    else:
        raise DreameryError("invalid_value", "The flags in the prompt are nested. Write each once.", param="prompt")
    if found and not rest:
        message = "The prompt holds nothing but flags. Say what to make."
        raise DreameryError("invalid_value", message, param="prompt")
    return Flags(prompt=rest, found=found)


def _pass(prompt: str, found: dict[str, str]) -> str:
    end = 0
    pieces: list[str] = []
    for match in _FLAG.finditer(prompt):
        if match["script"]:
            continue
        start, after = _note(match, found), _value_end(match)
        kept = prompt[end:start]
        if not prompt[after : after + 1].isalnum():
            kept = kept.rstrip()
        elif kept and not kept[-1].isspace():
            # Words that only the flag held apart stay apart.
            kept += " "
        pieces.append(kept)
        end = after
    return ("".join(pieces) + prompt[end:]).strip() if pieces else prompt


def _value_end(match: "re.Match[str]") -> int:
    """Where the flag ends: a full stop after the value is the sentence's."""
    if match["name"] is None or match["unit"]:
        return match.end()
    value = match["value"]
    return match.end() - (len(value) - len(value.rstrip(".")))


def _note(match: "re.Match[str]", found: dict[str, str]) -> int:
    """Remember what a match says; where it starts."""
    name = _NAMES[match["name"].lower()] if match["name"] else "ratio"
    raw = match["value"].rstrip(".") if match["name"] else re.sub(r"\s", "", match["ratio"])
    value = unicodedata.normalize("NFKC", raw).lower()
    if name == "duration" and re.fullmatch(r"[0-9]+s", value):
        value = value[:-1]
    if found.setdefault(name, value) != value:
        message = f"The prompt says `{_WRITTEN[name]}` twice: {found[name][:20]!r} and {value[:20]!r}. Keep one."
        raise DreameryError("invalid_value", message, param="prompt")
    return match.start()
