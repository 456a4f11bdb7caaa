"""Decides whether a chat is a background call of a front end, and what it is answered with.

Front ends send titles, tags, follow-ups and connection tests to the selected model, and an image model would draw them
and spend credits. They are recognised by `rules.toml` and the operator's file, else by their structure, and answered
without a model. The caller decides with `X-Dreamery-Job` or `dreamery_job` (docs/clients.md).
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from api.chat.background import answers
from api.chat.background.answers import Words
from api.chat.background.context_blocks import strip_blocks
from api.chat.background.shape import Call, judge_kind, kind_of
from api.chat.background.transcripts import read_transcript, without_role, without_tags
from api.chat.background.vocabulary import get_vocabulary
from api.chat.schemas import ChatMessage, ChatRequest, last_user_index, text_of, text_of_part
from worker.core.background_rules import Rule, RuleSet, load, normalized
from worker.core.errors import DreameryError
from worker.core.settings import get_settings

_MAX_TEST_TOKENS = 16
_SYSTEM_ROLES = frozenset({"system", "developer"})
# A longer message is no prompt, even with the text that front ends add; nothing searches all of it.
MAX_MESSAGE_CHARS = 1_000_000
# Rules read a text from both ends.
_READ_FIRST, _READ_LAST = 8000, 4000
# Answers name the conversation by its beginning.
_MAX_QUOTED = 20_000
# What the agent, which is a language model, does not have to answer itself.
_AGENT_KINDS = frozenset({"title", "tags", "follow_ups", "queries", "emoji", "autocomplete", "prompt"})
_JOB_CHOICES = ("always", "never")


@dataclass(frozen=True, slots=True)
class BackgroundCall:
    """The kind of a background call, its answer, and the rule that recognised it ("" = its structure)."""

    kind: str
    answer: str
    rule: str = ""


@lru_cache(maxsize=1)
def _shipped() -> RuleSet:
    return load(Path(__file__).parent / "rules.toml")


@lru_cache(maxsize=4)
def _all_rules(path: Path | None) -> RuleSet:
    own = load(path) if path else RuleSet()
    return RuleSet(rules=own.rules + _shipped().rules, blocks=own.blocks + _shipped().blocks)


def get_rules() -> RuleSet:
    """Return the operator's rules and the shipped ones, read once."""
    return _all_rules(get_settings().background_rules_file)


def prepare() -> None:
    """Read rules and words when the process starts, because that takes half a second."""
    get_rules()
    read_transcript("User: hello\nAssistant: hello")


def strip_context(text: str) -> str:
    """Return a message without the text that front ends add to it."""
    return strip_blocks(text, get_rules().blocks)


def parse_job_choice(header: str | None, field: str | None) -> str | None:
    """Return `always`, `never` or None, from the header `X-Dreamery-Job` and the field `dreamery_job`.

    Raises `invalid_value` for another value, or if the two differ.
    """
    chosen = (header or "").strip().lower() or None
    if chosen is not None and chosen not in _JOB_CHOICES:
        message = f"`X-Dreamery-Job` must be `always` or `never`; got {chosen[:40]!r}."
        raise DreameryError("invalid_value", message, param="X-Dreamery-Job")
    if chosen and field and chosen != field:
        message = f"`dreamery_job` is {field!r}, but the header `X-Dreamery-Job` is {chosen!r}. Send one of them."
        raise DreameryError("invalid_value", message, param="dreamery_job")
    return chosen or field


def find_background_call(
    body: ChatRequest, *, agent: bool, makes: str, choice: str | None, enabled: bool
) -> BackgroundCall | None:
    """Return the background call that a chat is; None for a chat that starts a job.

    `makes` is what the model generates, for errors. `choice` is `always`, `never` or None; `enabled` is the operator's
    switch, which `never` overrides. Raises `unsupported_parameter` if an image or video model is asked for a tool call
    or for JSON, unless a rule recognises the call.
    """
    detects = choice == "never" or (choice is None and enabled)
    chat = _read(body)
    if detects and (call := _match_rules(chat, agent=agent)) is not None:
        return call
    if not agent:
        reject_structured_output(body, makes)
    if not detects:
        return None
    call = _match_test(chat, agent=agent) or _match_shape(chat, agent=agent)
    if call is None and choice == "never":
        return BackgroundCall("task", answers.NOTHING_GENERATED)
    return call


def reject_structured_output(body: ChatRequest, makes: str) -> None:
    """Raise `unsupported_parameter` if a tool call or JSON is required: models of images and videos give neither."""
    form = str((body.response_format or {}).get("type", "")).lower()
    if form.startswith("json"):
        message = (
            f"This model generates {makes} and answers with links to them, so it cannot answer as {form[:40]!r}. "
            "Remove `response_format`, or send this request to a language model."
        )
        raise DreameryError("unsupported_parameter", message, param="response_format")
    for name, value in (("tool_choice", body.tool_choice), ("function_call", body.function_call)):
        if _is_forced(value):
            message = (
                f"This model generates {makes} and calls no tools, so `{name}` cannot require a call. "
                f"Remove `{name}` or set it to `auto`, or send this request to a language model."
            )
            raise DreameryError("unsupported_parameter", message, param=name)


def _is_forced(choice: Any) -> bool:
    if isinstance(choice, str):
        return choice.strip().lower() not in {"", "auto", "none"}
    if isinstance(choice, dict):
        mode = choice.get("mode") if choice.get("type") == "allowed_tools" else choice.get("type")
        nested = choice.get("allowed_tools")
        mode = nested.get("mode", mode) if isinstance(nested, dict) else mode
        return bool(choice) and mode not in {"auto", "none"}
    return False


# --- the parts of a chat ---


@dataclass(frozen=True, slots=True)
class _Chat:
    """A chat and the texts that rules and structure are compared with."""

    body: ChatRequest
    system: str
    user: str
    last: str
    has_image: bool

    def text(self, name: str) -> str:
        return f"{self.system}\n{self.last}\n{self.user}" if name == "anywhere" else str(getattr(self, name))


def _read(body: ChatRequest) -> _Chat:
    index = last_user_index(body.messages)
    message = body.messages[index] if index is not None else ChatMessage(role="user")
    last = body.messages[-1]
    user = strip_context(text_of(message).strip()[:MAX_MESSAGE_CHARS])
    return _Chat(
        body=body,
        system=_ends_of("\n\n".join(text_of(m).strip() for m in body.messages if m.role.lower() in _SYSTEM_ROLES)),
        user=user,
        last=user if last is message else text_of(last).strip()[:MAX_MESSAGE_CHARS],
        has_image=_has_image(message),
    )


def _has_image(message: ChatMessage) -> bool:
    parts = message.content if isinstance(message.content, list) else []
    return any(not isinstance(part, str) and text_of_part(part) is None for part in parts)


# --- rules ---


def _match_rules(chat: _Chat, *, agent: bool) -> BackgroundCall | None:
    texts = {name: _ends_of(chat.text(name)) for name in ("system", "user", "last", "anywhere")}
    plain = {name: normalized(text) for name, text in texts.items()}
    # Patterns do not read the conversation that a template quotes.
    raw = {name: without_tags(text) for name, text in texts.items()}
    for rule in get_rules().rules:
        if (not agent or rule.kind in _AGENT_KINDS) and _matches(rule, chat, raw, plain):
            kind = kind_of(_instruction_of(chat)) if rule.kind == "task" and rule.answer is None else rule.kind
            return BackgroundCall(kind, _answer_of(rule, kind, chat), rule.id)
    return None


def _matches(rule: Rule, chat: _Chat, raw: dict[str, str], plain: dict[str, str]) -> bool:
    body = chat.body
    tokens = body.max_tokens or body.max_completion_tokens
    return (
        all(any(text in plain[name] for text in texts) for name, texts in rule.texts.items())
        and all(pattern.search(raw[name]) for name, pattern in rule.patterns.items())
        and (rule.max_tokens_up_to is None or (tokens is not None and 0 < tokens <= rule.max_tokens_up_to))
        and (
            rule.temperature_up_to is None
            or (isinstance(body.temperature, int | float) and body.temperature <= rule.temperature_up_to)
        )
        and (not rule.transcript or read_transcript(chat.user).is_conversation)
        and (not rule.json or str((body.response_format or {}).get("type", "")).startswith("json"))
    )


def _answer_of(rule: Rule, kind: str, chat: _Chat) -> str:
    words = _words_of(chat, rule)
    wrapped = (chat.body.response_format or {}).get("json_schema")
    if isinstance(wrapped, dict) and isinstance(wrapped.get("schema"), dict):
        return answers.answer_of_schema(wrapped["schema"], words)
    if rule.answer is not None:
        return answers.fill_answer(rule.answer, words)
    return answers.make_answer(kind, words, _instruction_of(chat))


def _ends_of(text: str) -> str:
    return text if len(text) <= _READ_FIRST + _READ_LAST else f"{text[:_READ_FIRST]}\n{text[-_READ_LAST:]}"


# --- connection tests and structure ---


def _match_test(chat: _Chat, *, agent: bool) -> BackgroundCall | None:
    body = chat.body
    if chat.has_image and not agent:
        return None
    # Clients send 0 or less for "no limit".
    small = any(0 < (limit or 0) <= _MAX_TEST_TOKENS for limit in (body.max_tokens, body.max_completion_tokens))
    greets = not agent and chat.user.lower().rstrip("!.?！。？ ") in get_vocabulary().greetings and _is_first(body)
    return BackgroundCall("test", "ok") if small or greets else None


def _is_first(body: ChatRequest) -> bool:
    roles = [message.role.lower() for message in body.messages]
    return roles.count("user") == 1 and "assistant" not in roles


def _match_shape(chat: _Chat, *, agent: bool) -> BackgroundCall | None:
    body = chat.body
    call = Call(
        system=chat.system,
        user=chat.last if body.messages[-1].role.lower() in _SYSTEM_ROLES else chat.user,
        has_answer_before=any(message.role.lower() == "assistant" for message in body.messages),
        has_image=chat.has_image,
        has_tools=bool(body.tools or body.functions),
        max_tokens=body.max_tokens or body.max_completion_tokens,
        temperature=float(body.temperature) if isinstance(body.temperature, int | float) else None,
    )
    kind = judge_kind(call)
    if kind is None or (agent and kind != "title"):
        return None
    return BackgroundCall(kind, answers.make_answer(kind, _words_of(chat), _instruction_of(chat)))


def _instruction_of(chat: _Chat) -> str:
    return _ends_of(f"{chat.system}\n{read_transcript(chat.user).instruction}")


def _words_of(chat: _Chat, rule: Rule | None = None) -> Words:
    """Return what the user wrote: in the quoted conversation, after the rule's marker, or in the messages before."""
    if rule is not None and rule.content_after:
        _, found, after = chat.user.partition(rule.content_after)
        if found and after.strip():
            content = after.strip().strip("\"'“”")
            return Words(content, content)
    quoted = read_transcript(chat.user).messages
    if quoted:
        return Words(quoted[0], quoted[-1])
    texts = [text_of(m).strip() for m in chat.body.messages if m.role.lower() == "user"]
    # An instruction in a system message concerns the last user message, too.
    texts = texts[:-1] if len(texts) > 1 and texts[-1] == chat.last else texts
    texts = [
        without_role(strip_context(text[:_MAX_QUOTED])) for text in texts if text and not _is_instruction(text, chat)
    ]
    return Words(texts[0], texts[-1]) if texts else Words("", "")


def _is_instruction(text: str, chat: _Chat) -> bool:
    """Return whether the only message of a chat without a system message is the instruction itself."""
    return not chat.system and text == chat.user and text == chat.last
