"""Reads which of several earlier pictures a message names: "the second one", "第三张", "picture 2"."""

from dataclasses import dataclass
from itertools import chain

from api.chat.follow_ups.classifier import languages_of, normalize


@dataclass(frozen=True, slots=True)
class NamedPicture:
    """A number as the message counts (1 = the first, -1 = the last), and whether it may count something else."""

    number: int
    loose: bool


def named_pictures(text: str, earlier: list[str]) -> list[NamedPicture]:
    """Return the pictures that a message names, in its order, each number once."""
    message = normalize(text)
    languages = languages_of(message, [normalize(one) for one in earlier])
    found: dict[int, tuple[int, bool]] = {}
    for ordinal in chain.from_iterable(language.ordinals for language in languages):
        for match in ordinal.pattern.finditer(message):
            digits = next((value for value in match.groupdict().values() if value), None)
            number = int(digits) if digits else ordinal.number
            at, loose = found.get(number, (match.end(), True))
            if number:
                found[number] = (min(at, match.end()), loose and ordinal.loose)
    return [NamedPicture(number, loose) for number, (_, loose) in sorted(found.items(), key=lambda item: item[1][0])]
