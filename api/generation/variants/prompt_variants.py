r"""Variants of a prompt: `a {red|blue} boat` stands for two prompts. Pure text, no request is read here.

`{a|b}` is a choice; choices may stand within each other, and an alternative may be empty. Braces without a bar are
text, and so is a bar outside of braces. `\{`, `\}`, `\|` and `\\` are plain characters; any other backslash is text.
The variants come in the order of reading: the last choice changes fastest.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Self

_MOST_LEVELS = 10
_ESCAPED = frozenset("{}|\\")


class PromptSyntaxError(ValueError):
    """Braces that do not fit. The text says what and where, counted in characters from 1."""


@dataclass(frozen=True, slots=True)
class _Choice:
    alternatives: tuple["_Sequence", ...]


@dataclass(frozen=True, slots=True)
class _Sequence:
    """Texts and choices, one after the other."""

    parts: tuple[str | _Choice, ...]


@dataclass(slots=True)
class _Open:
    """A brace that is not closed yet: finished alternatives, and the parts of the present one."""

    position: int
    done: list[_Sequence]
    parts: list[str | _Choice]


class PromptVariants:
    """The variants that a prompt stands for. Raises `PromptSyntaxError` for braces that do not fit."""

    __slots__ = ("_root", "count")

    def __init__(self, text: str) -> None:
        self._root = _parse(text)
        self.count = _count(self._root)

    @classmethod
    def of_plain_text(cls, text: str) -> Self:
        """Return the one prompt that a text is where nothing is expanded."""
        found = cls("")
        found._root = _Sequence((text,))
        return found

    def __iter__(self) -> Iterator[str]:
        """Yield each variant. Look at `count` first: a short text can stand for very many."""
        return _texts(self._root)


def split_prompts(text: str) -> list[str]:
    """Return the prompts of a text with one prompt per line, without empty lines and the spaces around them."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def _parse(text: str) -> _Sequence:
    stack = [_Open(0, [], [])]
    position = 0
    while position < len(text):
        char = text[position]
        position += 1
        if char == "\\" and text[position : position + 1] in _ESCAPED and position < len(text):
            stack[-1].parts.append(text[position])
            position += 1
        elif char == "{":
            if len(stack) > _MOST_LEVELS:
                raise PromptSyntaxError(f"more than {_MOST_LEVELS} levels of braces at character {position}")
            stack.append(_Open(position, [], []))
        elif char == "|" and len(stack) > 1:
            stack[-1].done.append(_Sequence(tuple(stack[-1].parts)))
            stack[-1].parts = []
        elif char == "}":
            if len(stack) == 1:
                raise PromptSyntaxError(
                    f"the brace at character {position} closes nothing; plain braces are \\{{ and \\}}"
                )
            _close(stack)
        else:
            stack[-1].parts.append(char)
    if len(stack) > 1:
        raise PromptSyntaxError(
            f"the brace at character {stack[-1].position} is not closed; plain braces are \\{{ and \\}}"
        )
    return _Sequence(tuple(stack[0].parts))


def _close(stack: list[_Open]) -> None:
    """Add the innermost brace to what surrounds it: as a choice, or as text where it has no bar."""
    inner = stack.pop()
    if inner.done:
        stack[-1].parts.append(_Choice((*inner.done, _Sequence(tuple(inner.parts)))))
    else:
        stack[-1].parts += ["{", *inner.parts, "}"]


def _count(sequence: _Sequence) -> int:
    return prod(
        sum(_count(alternative) for alternative in part.alternatives)
        for part in sequence.parts
        if isinstance(part, _Choice)
    )


def _texts(sequence: _Sequence) -> Iterator[str]:
    """Yield the texts of a sequence. Only alternatives within choices are held, which `count` bounds."""
    options: list[list[str]] = []
    plain: list[str] = []
    for part in sequence.parts:
        if isinstance(part, str):
            plain.append(part)
            continue
        options.append(["".join(plain)])
        options.append([text for alternative in part.alternatives for text in _texts(alternative)])
        plain = []
    options.append(["".join(plain)])
    return ("".join(chosen) for chosen in product(*options))
