"""Model names as chat clients write them: an id or alias, and what may follow it: `:2k`, `:16:9`, `:1024x1024`, `:5s`.

LobeChat's `name:image` means the name alone.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from worker.core.errors import DreameryError

# Longest first: `16:9` must not be read as two words.
_WORD = re.compile(
    r"""(?P<size>[1-9][0-9]{0,4}[x×*][1-9][0-9]{0,4})
    | (?P<ratio>[0-9]{1,2}:[0-9]{1,2})
    | (?P<resolution>[0-9](?:\.[0-9])?k|[0-9]{3,4}p)
    | (?P<duration>[0-9]{1,3})s(?:ec(?:onds?)?)?
    | (?P<mark>image|video)""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class ModelName:
    """A known model's id or alias, and what the rest of the name says: size, ratio, resolution, duration (seconds)."""

    name: str
    says: dict[str, str] = field(default_factory=dict)


def read_model_name(written: str, known: Callable[[str], bool]) -> ModelName:
    """Split a name at the colon behind a known model. Names that are known as a whole, or not at all, stay whole.

    Raises `invalid_value` for a rest that says nothing we know.
    """
    if known(written):
        return ModelName(written)
    colons = [n for n, letter in enumerate(written) if letter in ":："]
    for colon in reversed(colons):
        if known(written[:colon]):
            return ModelName(written[:colon], _read_rest(written[colon + 1 :], written))
    return ModelName(written)


def _read_rest(rest: str, written: str) -> dict[str, str]:
    says: dict[str, str] = {}
    left = rest.replace("：", ":").strip().lower()
    while left:
        match = _WORD.match(left)
        end = match.end() if match else 0
        if match is None or match.lastgroup is None or left[end : end + 1] not in {"", ":"}:
            raise _not_understood(written, left)
        if says.setdefault(match.lastgroup, match[match.lastgroup]) != match[match.lastgroup]:
            raise _not_understood(written, left)
        left = left[end + 1 :]
    says.pop("mark", None)
    return says


def _not_understood(written: str, part: str) -> DreameryError:
    message = (
        f"`:{part[:40]}` at the end of model {written[:80]!r} is not understood. What may follow a model's name: a "
        "resolution (`:2k`, `:720p`), a ratio (`:16:9`), pixels (`:1024x1024`), for videos seconds (`:5s`)."
    )
    return DreameryError("invalid_value", message, param="model")
