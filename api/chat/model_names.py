"""Model names with suffixes, as chat clients send them: an id or alias, then `:2k`, `:16:9`, `:1024x1024` or `:5s`.

LobeChat's `name:image` means the model without options.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from worker.core.errors import DreameryError

# Ordered so that `16:9` is read as one suffix.
_SUFFIX = re.compile(
    r"""(?P<size>[1-9][0-9]{0,4}[x×*][1-9][0-9]{0,4})
    | (?P<ratio>[0-9]{1,2}:[0-9]{1,2})
    | (?P<resolution>[0-9](?:\.[0-9])?k|[0-9]{3,4}p)
    | (?P<duration>[0-9]{1,3})s(?:ec(?:onds?)?)?
    | (?P<kind>image|video)""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class ModelName:
    """The id or alias of a model and the options of its suffixes: size, ratio, resolution, duration (seconds)."""

    name: str
    options: dict[str, str] = field(default_factory=dict)


def parse_model_name(name: str, is_known: Callable[[str], bool]) -> ModelName:
    """Split a name at the colon after a known model. Names that are known as a whole, or unknown, are not split.

    Raises `invalid_value` for an unknown suffix.
    """
    if is_known(name):
        return ModelName(name)
    colons = [n for n, letter in enumerate(name) if letter in ":："]
    for colon in reversed(colons):
        if is_known(name[:colon]):
            return ModelName(name[:colon], _parse_suffixes(name[colon + 1 :], name))
    return ModelName(name)


def _parse_suffixes(suffixes: str, name: str) -> dict[str, str]:
    options: dict[str, str] = {}
    left = suffixes.replace("：", ":").strip().lower()
    while left:
        match = _SUFFIX.match(left)
        end = match.end() if match else 0
        if match is None or match.lastgroup is None or left[end : end + 1] not in {"", ":"}:
            raise _invalid_suffix(name, left)
        if options.setdefault(match.lastgroup, match[match.lastgroup]) != match[match.lastgroup]:
            raise _invalid_suffix(name, left)
        left = left[end + 1 :]
    options.pop("kind", None)
    return options


def _invalid_suffix(name: str, suffix: str) -> DreameryError:
    message = (
        f"Unknown suffix `:{suffix[:40]}` of model {name[:80]!r}. Allowed after a model name: a resolution (`:2k`, "
        "`:720p`), a ratio (`:16:9`), pixels (`:1024x1024`) and, for videos, seconds (`:5s`)."
    )
    return DreameryError("invalid_value", message, param="model")
