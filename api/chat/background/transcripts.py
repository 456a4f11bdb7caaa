"""Finds a conversation that is quoted in a text, the instruction around it, and the messages of the user in it.

Front ends quote conversations in tags (`<chat_history>`), as lines with roles (`User: ...`), or as JSON messages.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from api.chat.background.vocabulary import get_vocabulary

# Longer texts are read from both ends: an instruction stands before or after what it quotes.
_MAX_READ = 20_000
_JSON_ROLE = re.compile(r'"(?:role|from|author|sender)"\s*:\s*"(?:user|human|assistant|ai|system)"', re.IGNORECASE)
_JSON_TEXT = re.compile(r'"(?:mainText|content|text)"\s*:\s*"((?:[^"\\]|\\.)*)"')
_FENCE = re.compile(r"```[^\n]*\n(.*?)```|\"\"\"(.*?)\"\"\"", re.DOTALL)
_OPENING_TAG = re.compile(r"<([A-Za-z][\w-]{1,40})(?:\s[^<>]{0,200})?>")
_LABELLED = re.compile(r"""^[^\n:：]{1,60}[:：]\s*["'“「『`{\[(]""")
_MARKS = r"[ \t]*(?:\|\|>|[-*>#•]+|\d+[.)])?[ \t]*[\[(<【]?(?:\*\*|__)?"
_END_MARKS = r"(?:\*\*|__)?[\])>】]?[ \t]*[:：][ \t]*(?:\*\*|__)?"


@dataclass(frozen=True, slots=True)
class Transcript:
    """What a text quotes: the kind of the quotation, the instruction around it, and the user's messages in order.

    `kind` is `tags`, `roles` (both sides), `lines` (of the user only), `json`, `fence`, or "" for none.
    """

    kind: str
    instruction: str
    messages: tuple[str, ...] = ()

    @property
    def is_conversation(self) -> bool:
        """Return whether a conversation is quoted, not just some text."""
        return self.kind in {"tags", "roles", "lines", "json"}


@dataclass(frozen=True, slots=True)
class _Labels:
    """Patterns of lines that begin with a role; group 1 is the rest of the line."""

    user: re.Pattern[str]
    assistant: re.Pattern[str]


@lru_cache(maxsize=1)
def _labels() -> _Labels:
    words = get_vocabulary()
    user, assistant = ("|".join(map(re.escape, roles)) for roles in (words.user_roles, words.assistant_roles))
    return _Labels(
        user=re.compile(rf"^{_MARKS}(?:{user}){_END_MARKS}(.*)$", re.IGNORECASE),
        assistant=re.compile(rf"^{_MARKS}(?:{assistant}){_END_MARKS}(.*)$", re.IGNORECASE),
    )


def read_transcript(text: str) -> Transcript:
    """Return the conversation that a text quotes, and the instruction around it."""
    text = text if len(text) <= _MAX_READ else f"{text[: _MAX_READ // 2]}\n{text[-_MAX_READ // 2 :]}"
    outside, quoted = _split_tags(text)
    if quoted is not None:
        return Transcript("tags", outside, _user_messages(quoted) or (quoted.strip(),))
    if len(_JSON_ROLE.findall(text[:_MAX_READ])) > 0:
        return _json_transcript(text)
    if (by_roles := _role_transcript(text)) is not None:
        return by_roles
    if (fence := _FENCE.search(text)) is not None:
        content = (fence[1] or fence[2] or "").strip()
        outside = f"{text[: fence.start()]}\n{text[fence.end() :]}"
        return Transcript("fence", outside, _user_messages(content) or (content.split("\n\n")[0],))
    return Transcript("", text)


def without_tags(text: str) -> str:
    """Return the text outside the tags that quote a conversation."""
    return _split_tags(text)[0]


def without_role(text: str) -> str:
    """Return a text without the role of the user at its beginning."""
    first, found, rest = text.partition("\n")
    match = _labels().user.match(first)
    return f"{match[1].strip()}{found}{rest}".strip() if match else text


def is_labelled_quotation(text: str) -> bool:
    """Return whether a text is a label and a quotation, such as `User message: "..."`."""
    return _LABELLED.match(text.lstrip()[:200]) is not None


def _split_tags(text: str) -> tuple[str, str | None]:
    """Return the text outside all transcript tags, and what the first such tag quotes; None without one."""
    tags = get_vocabulary().transcript_tags
    outside, quoted, position = [], None, 0
    for match in _OPENING_TAG.finditer(text):
        if match.start() < position or match[1].lower() not in tags:
            continue
        end = text.find(f"</{match[1]}>", match.end())
        content = text[match.end() : end if end >= 0 else len(text)]
        # A tag that is only mentioned has nothing inside: "the text in the <chat_history> </chat_history> tags".
        if not content.strip() or (end < 0 and "\n" not in content) or f"<{match[1]}>" in content:
            continue
        outside.append(text[position : match.start()])
        quoted = content if quoted is None else quoted
        position = end + len(match[1]) + 3 if end >= 0 else len(text)
    return "\n".join([*outside, text[position:]]), quoted


def _json_transcript(text: str) -> Transcript:
    start = min((at for mark in "[{" if (at := text.find(mark)) >= 0), default=0)
    end = max(text.rfind("]"), text.rfind("}")) + 1
    messages = tuple(found.strip() for found in _JSON_TEXT.findall(text))
    return Transcript("json", f"{text[:start]}\n{text[end:] if end > start else ''}", messages)


def _role_transcript(text: str) -> Transcript | None:
    """Return the conversation in lines with roles: both roles, or several lines of the user."""
    lines, labels = text.split("\n"), _labels()
    users = [n for n, line in enumerate(lines) if labels.user.match(line[:200])]
    assistants = [n for n, line in enumerate(lines) if labels.assistant.match(line[:200])]
    if not users or not (assistants or len(users) > 1):
        return None
    first, last = min(users + assistants), max(users + assistants)
    # What follows an empty line after the last role is an instruction again.
    blank = next((n for n in range(last + 1, len(lines)) if not lines[n].strip()), len(lines))
    instruction = "\n".join([*lines[:first], *lines[blank:]])
    return Transcript("roles" if assistants else "lines", instruction, _user_messages("\n".join(lines[first:blank])))


def _user_messages(quoted: str) -> tuple[str, ...]:
    """Return the messages of the user in lines with roles, else the texts of JSON messages."""
    labels = _labels()
    found: list[str] = []
    waiting = False
    for line in quoted.split("\n"):
        if match := labels.user.match(line):
            found.append(match[1].strip())
            waiting = not match[1].strip()
        elif labels.assistant.match(line):
            waiting = False
        elif waiting and line.strip():
            found[-1] = line.strip()
            waiting = False
    return tuple(text for text in found if text) or tuple(text.strip() for text in _JSON_TEXT.findall(quoted))
