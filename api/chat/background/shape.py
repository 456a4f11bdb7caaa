"""Judges by its structure whether a chat is meant for a language model: for templates that no rule knows.

Evidence is added up: a quoted conversation, a task on a conversation or a given text, limits on the length or the form
of the answer, a small token limit, a system message with such a task. Words of picture requests count against it. No
word decides alone. docs/clients.md publishes how often the result is right.
"""

import re
from dataclasses import dataclass

from api.chat.background.transcripts import Transcript, is_labelled_quotation, read_transcript
from api.chat.background.vocabulary import get_vocabulary

# An instruction stands at the beginning of a text, or at its end.
_BEGINNING, _ENDING = 700, 500
_SYSTEM_READ = 1500
_HEAD = 60
_THRESHOLD = 3
_PERSONA_KINDS = 3
# Kinds that several words together describe; a single word such as "title" says less.
_SPECIFIC_KINDS = frozenset({"follow_ups", "memory", "merge"})
# A system message that gives one of these tasks and limits the answer needs no more evidence. "Name" and "title" occur
# in descriptions of persons, too.
_PLAIN_KINDS = frozenset(
    {"tags", "queries", "follow_ups", "summary", "memory", "translation", "merge", "classification"}
)
_NUMBERED = re.compile(r"^[^\n:：]{2,30}\s?(?:\d{1,2}|[A-D一二三四])\s*[)）]?\s*[:：]", re.MULTILINE)
_SMALL_TOKENS, _MEDIUM_TOKENS = 128, 256
_LOW_TEMPERATURE = 0.3
_JSON_FORM = re.compile(r"\bJSON\b|\bXML\b|\bYAML\b|\{\s*\"\w+\"\s*:|\[\s*\"[^\"\n]{1,60}\"\s*,", re.IGNORECASE)
_MIN_SYSTEM = 60


@dataclass(frozen=True, slots=True)
class Call:
    """The parts of a chat that are judged."""

    system: str
    user: str
    has_answer_before: bool = False
    has_image: bool = False
    has_tools: bool = False
    max_tokens: int | None = None
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What an instruction contains, each 0 or 1, and the number of picture words."""

    kinds: tuple[str, ...]
    conversation: int
    limits: int
    units: int
    form: int
    references: int
    pictures: int

    @property
    def task(self) -> int:
        return 2 if _SPECIFIC_KINDS.intersection(self.kinds) else int(bool(self.kinds))

    @property
    def score(self) -> int:
        found = self.task + self.conversation + self.limits + self.units + self.form + self.references
        return found - self.pictures


def judge_kind(call: Call) -> str | None:
    """Return the kind of a background call, or None for a request to generate something."""
    if call.has_image:
        return None
    transcript = read_transcript(call.user)
    kind = _judge_user(call, transcript) or _judge_system(call, transcript)
    # The user's message only quotes the conversation: the system message has the task.
    return kind_of(call.system[:_SYSTEM_READ]) if kind == "task" else kind


def _judge_user(call: Call, transcript: Transcript) -> str | None:
    """Judge the instruction in the user's message."""
    evidence = _read(_ends_of(transcript.instruction.strip()), complete=transcript.is_conversation)
    if not (evidence.kinds or transcript.is_conversation):
        return None
    score = evidence.score + _quotation_score(transcript) + _token_score(call) + int(call.has_answer_before)
    score += _numbered_score(call)
    # An answer before and a limit on the length say nothing about what the message is for: "a title of three words".
    related = bool(evidence.conversation or evidence.references or evidence.form or transcript.kind)
    related = related or bool(_SPECIFIC_KINDS.intersection(evidence.kinds))
    return _preferred(evidence.kinds) if related and score >= _THRESHOLD else None


def _judge_system(call: Call, transcript: Transcript) -> str | None:
    """Judge the system message: it gives a task, and the user's message is what the task is done with."""
    system = call.system.strip()[:_SYSTEM_READ]
    if not system:
        return None
    evidence = _read(system)
    kinds = evidence.kinds
    # A system message of an assistant lists what it can do; with tools it explains them.
    if not transcript.is_conversation and (len(kinds) >= _PERSONA_KINDS or call.has_tools):
        kinds = ()
    number = int(any(char.isdigit() for char in system))
    quoted = int(is_labelled_quotation(call.user)) + _numbered_score(call)
    related = evidence.conversation or evidence.references or evidence.units or evidence.form or quoted
    tokens = _token_score(call) if (len(system) >= _MIN_SYSTEM and related) or number else 0
    score = evidence.score - (0 if kinds else evidence.task) + _quotation_score(transcript) + quoted + tokens
    score += int(bool(number and not evidence.units and tokens))
    limited = number or evidence.limits or evidence.form or quoted
    core = kinds or transcript.is_conversation or (tokens > 1 and limited)
    enough = _THRESHOLD - int(bool(_PLAIN_KINDS.intersection(kinds) and evidence.limits))
    return _preferred(kinds) if core and score >= enough and not _draws(call.user, kinds) else None


def _draws(user: str, kinds: tuple[str, ...]) -> bool:
    """Return whether the user asks for a picture while the system message names no task."""
    return not kinds and get_vocabulary().pictures.search(user[:_HEAD].lower()) is not None


def _read(instruction: str, *, complete: bool = True) -> _Evidence:
    """Return what an instruction contains. Without a task the rest is only read if `complete`."""
    words = get_vocabulary()
    form = int(_JSON_FORM.search(instruction) is not None)
    instruction = instruction.lower()
    kinds = tuple(kind for kind, pattern in words.tasks.items() if pattern.search(instruction))
    if not (kinds or complete):
        return _Evidence((), conversation=0, limits=0, units=0, form=0, references=0, pictures=0)
    pictures = {match[0] for match in words.pictures.finditer(instruction)}
    against = min(2 * len(pictures), 2 + len(pictures), 5)
    # A request that begins with a picture is about the picture: "a poster with the title ...".
    against += 2 if words.pictures.search(instruction[:_HEAD]) else 0
    return _Evidence(
        kinds=kinds,
        conversation=int(words.conversation.search(instruction) is not None),
        limits=int(words.limits.search(instruction) is not None),
        units=int(words.units.search(instruction) is not None),
        form=form,
        references=int(words.references.search(instruction) is not None),
        pictures=against,
    )


def _quotation_score(transcript: Transcript) -> int:
    return {"tags": 3, "json": 3, "roles": 3, "lines": 2, "fence": 1}.get(transcript.kind, 0)


def _numbered_score(call: Call) -> int:
    """Return 1 for a list of alternatives: `Answer 1: ...`, `Response A: ...`."""
    return int(len(_NUMBERED.findall(call.user[: 2 * _BEGINNING])) > 1)


def _token_score(call: Call) -> int:
    tokens = call.max_tokens or 0
    small = 2 if 0 < tokens <= _SMALL_TOKENS else int(0 < tokens <= _MEDIUM_TOKENS)
    return small + int(call.temperature is not None and call.temperature <= _LOW_TEMPERATURE)


def kind_of(instruction: str) -> str:
    """Return the kind of an instruction that is known to be one; `task` for an unknown one."""
    return _preferred(_read(_ends_of(instruction)).kinds)


def _preferred(kinds: tuple[str, ...]) -> str:
    """Return the kind that decides the answer: the kinds are in the order of the vocabulary, `title` first."""
    return kinds[0] if kinds else "task"


def _ends_of(text: str) -> str:
    return text if len(text) <= _BEGINNING + _ENDING else f"{text[:_BEGINNING]}\n{text[-_ENDING:]}"
