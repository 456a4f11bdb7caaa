"""Translates the texts of errors into Chinese: whole sentences, with the names and numbers of the English ones.

Rows and logs contain the English text, so the translation starts from it. Each English text is a template in
`chinese.toml`; the parts that differ are taken from the text and translated in turn.
"""

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from string import Formatter

from worker.core.errors import ERRORS, ErrorKind

# Longer texts are not ours, and deeper parts are not texts.
_MAX_CHARS = 4000
_MAX_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Template:
    """An English template as the constant parts around its variable ones, and its translation."""

    parts: tuple[str, ...]
    chinese: str

    def match(self, text: str) -> list[str] | None:
        """Return the variable parts; None if the text has another form. Takes linear time for any text."""
        first, *between, last = self.parts
        if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
            return None
        position, end, found = len(first), len(text) - len(last), []
        for part in between:
            at = text.find(part, position, end)
            if at < 0:
                return None
            found.append(text[position:at])
            position = at + len(part)
        return [*found, text[position:end]]


def chinese_message(kind: ErrorKind, message: str | None) -> str:
    """Return the Chinese text of an error. What has no translation follows the general text in brackets."""
    if not message or message == kind.message:
        return kind.message_zh
    if (whole := translate(message)) is not None:
        return whole
    # Upstream's own words follow our sentence, which is translated already.
    rest = message.removeprefix(kind.message).strip()
    return f"{kind.message_zh}（{translate(rest) or rest}）"


def translate(text: str, depth: int = 0) -> str | None:
    """Return the Chinese text of an English one; None if there is no template for it."""
    constant, templates = _catalog()
    if text in constant:
        return constant[text]
    if len(text) > _MAX_CHARS or depth > _MAX_DEPTH:
        return None
    for template in templates:
        found = template.match(text)
        if found is not None and not (template.parts[0] == "" and _is_unknown_sentence(found[0], depth)):
            return template.chinese.format(*(translate(part, depth + 1) or part for part in found))
    return None


def _is_unknown_sentence(text: str, depth: int) -> bool:
    """Return whether this is a sentence without a translation: with the rest of a template it would be a mixed text."""
    return text.endswith(".") and translate(text, depth + 1) is None


@lru_cache(maxsize=1)
def _catalog() -> tuple[dict[str, str], list[Template]]:
    """The texts without variable parts, and the templates, the most specific first."""
    constant, templates = {kind.message: kind.message_zh for kind in ERRORS.values()}, []
    for english, chinese in read_entries().items():
        parts = split_template(english)
        if len(parts) == 1:
            constant[parts[0]] = chinese.format()
        else:
            templates.append(Template(parts, chinese))
    templates.sort(key=lambda template: -sum(map(len, template.parts)))
    return constant, templates


def read_entries() -> dict[str, str]:
    """Return all entries of `chinese.toml`: English template to Chinese template."""
    sections = tomllib.loads(resources.files(__package__).joinpath("chinese.toml").read_text("utf-8"))
    return {english: chinese for section in sections.values() for english, chinese in section.items()}


def split_template(template: str) -> tuple[str, ...]:
    """Return the constant parts of a template: one more than it has `{}`."""
    parts = [""]
    for constant, name, _, _ in Formatter().parse(template):
        parts[-1] += constant
        if name is not None:
            parts.append("")
    return tuple(parts)
