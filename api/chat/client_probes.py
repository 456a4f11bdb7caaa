"""Detects background calls of chat front ends: titles, tags, follow-ups and connection tests.

Front ends send them to the selected model, and an image model would draw them and spend credits. They are answered
from the conversation itself, without a model (openai-compat 9.11). This module reads no settings and no database rows.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from api.chat.schemas import ChatMessage, ChatRequest, last_user_index, text_of, text_of_part

_TASK_PREFIX = "### Task:"
_MAX_TEST_TOKENS = 16
# Messages of connection tests.
_GREETINGS = frozenset(
    {"hi", "hello", "hey", "test", "testing", "ping", "ok", "say this is a test", "你好", "您好", "测试", "在吗", "嗨"}
)
# Only the beginning of a text is classified: histories and documents follow it.
_MAX_CLASSIFIED = 600
_CONVERSATION = r"\b(?:conversation|chat|discussion|dialog(?:ue)?)\b"
_BREVITY = re.compile(r"\b(?:words?|characters?|short|brief|concise|punctuation|quotation|lead-in)\b", re.IGNORECASE)
_TITLE_REQUEST = re.compile(
    rf"""\b(?:generate|provide|create|write|give|suggest|choose|reply|respond|answer)\b
        .{{0,120}}?\b(?:title|topic)\b.{{0,80}}?{_CONVERSATION}
    | \b(?:summari[sz]e|sum\ up|name|title)\b.{{0,80}}?{_CONVERSATION}.{{0,80}}?\b(?:title|topic)\b
    | \b(?:conversation|chat)\ (?:summari[sz]er|namer|titler)\b""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
# A title that appears in an image is not the title of a chat.
_IMAGE_WORDS = re.compile(r"\b(?:picture|image|poster|card|logo|cover|banner|illustration|screen)s?\b", re.IGNORECASE)
_TITLE_REQUEST_ZH = re.compile(
    r"(?=.*(?:标题|主题|话题))(?=.*(?:总结|概括|简要|返回|生成))(?=.*(?:对话|会话|聊天|这句话))(?=.*(?:字|标点))",
    re.DOTALL,
)
_SUMMARY_REQUEST = re.compile(
    r"\bsummari[sz]e\b[\s\S]*\b(?:discussion|conversation|chat)\b[\s\S]*\b(?:prompt|context|words?)\b"
    r"|总结[\s\S]*(?:对话|会话|聊天)[\s\S]*(?:上下文|提示|字)",
    re.IGNORECASE,
)
_IMAGE_REQUEST = re.compile(
    r"""\b(?:draw|paint|sketch|render|illustrat\w*|generate|create|design|make|imagine|animate|edit|visuali[sz]e
        |pictures?|images?|photos?|drawings?|paintings?|portraits?|wallpapers?|posters?|logos?|icons?|videos?|clips?)\b
    | [画图绘片拍] | 视频 | 海报 | 生成 | 设计 | 头像 | 壁纸
    | \[\[ | (?<!\S)-(?:re|ra|d)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_HISTORY = re.compile(r"<(chat_history|conversation|messages)>([\s\S]*?)(?:</\1>|\Z)", re.IGNORECASE)
_USER_LINE = re.compile(
    r"(?:^|\n)[^\S\n]*(?:\|\|>|\*\*|[-*] )?(?:user|human|用户)(?:\*\*)?[:：](?:\*\*)?[^\S\n]*\n?(.+)", re.IGNORECASE
)
# Some clients quote the conversation as JSON.
_QUOTED_JSON = re.compile(r'"(?:mainText|content|text)"\s*:\s*"((?:[^"\\]|\\.)*)"')
_MARKUP = re.compile(
    r"!\[[^\[\]]{0,500}\]\([^()\s]*\)|\[([^\[\]]{0,500})\]\([^()\s]*\)|\[\[[^\[\]]*\]\]|<[^<>]{1,200}>|[`*_#>|]+"
)
_FLAG = re.compile(r"(?<!\S)-(?:re|ra|d)\s+\S+", re.IGNORECASE)
_MAX_TITLE_WORDS = 6
_MAX_TITLE_CHARS = 48
_DEFAULT_TITLE = "New chat"


@dataclass(frozen=True, slots=True)
class ClientProbe:
    """The kind of a background call, and its answer."""

    kind: str
    answer: str


def detect_client_probe(body: ChatRequest) -> ClientProbe | None:
    """Return the probe that `body` is; None for a request to generate something."""
    message, text = _last_user_message(body)
    rules = [_match_task, _match_title, _match_summary, _match_json]
    rules += [] if _has_image(message) else [_match_test, _match_tools]
    return next((probe for rule in rules if (probe := rule(body, text))), None)


def detect_agent_probe(body: ChatRequest) -> ClientProbe | None:
    """Return the probe of a chat with the agent. The agent itself answers greetings, tools, JSON and unknown tasks."""
    _, text = _last_user_message(body)
    if (task := _match_task(body, text)) and task.kind != "task":
        return task
    return _match_title(body, text) or _match_token_limit(body)


def _last_user_message(body: ChatRequest) -> tuple[ChatMessage, str]:
    """Return the last user message and its text."""
    index = last_user_index(body.messages)
    message = body.messages[index] if index is not None else ChatMessage(role="user")
    return message, text_of(message).strip()


def _match_title(body: ChatRequest, text: str) -> ClientProbe | None:
    instruction = next((text_of(m).strip() for m in body.messages if m.role.lower() in {"system", "developer"}), "")
    if _is_title_request(text) or _is_title_request(instruction):
        return ClientProbe("title", _title(_first_user_text(body.messages, text)))
    return None


def _match_summary(body: ChatRequest, _text: str) -> ClientProbe | None:
    if _SUMMARY_REQUEST.search(text_of(body.messages[-1])[:_MAX_CLASSIFIED]):
        return ClientProbe("summary", "The user asked for images; the newest request is the newest message.")
    return None


def _match_json(body: ChatRequest, text: str) -> ClientProbe | None:
    if str((body.response_format or {}).get("type", "")).startswith("json"):
        return ClientProbe("json", _json_answer(body, _first_user_text(body.messages, text)))
    return None


def _match_test(body: ChatRequest, text: str) -> ClientProbe | None:
    if text.lower().rstrip("!.?！。？ ") in _GREETINGS and _is_first(body.messages):
        return ClientProbe("test", "ok")
    return _match_token_limit(body)


def _match_token_limit(body: ChatRequest) -> ClientProbe | None:
    # Clients send 0 or less for "no limit".
    limits = (body.max_tokens, body.max_completion_tokens)
    is_test = any(0 < (limit or 0) <= _MAX_TEST_TOKENS for limit in limits)
    return ClientProbe("test", "ok") if is_test else None


def _match_tools(body: ChatRequest, text: str) -> ClientProbe | None:
    return ClientProbe("tools", _NOTHING_GENERATED) if body.tools and not _IMAGE_REQUEST.search(text) else None


_NOTHING_GENERATED = (
    "Nothing was generated: this model only generates images or videos, and the message asks for none. "
    'Describe what to generate, for example "draw a red paper boat".'
)


def _is_title_request(text: str) -> bool:
    beginning = text[:_MAX_CLASSIFIED]
    match = _TITLE_REQUEST.search(beginning)
    in_english = match is not None and not _IMAGE_WORDS.search(match[0]) and _BREVITY.search(beginning)
    return bool(in_english) or bool(_TITLE_REQUEST_ZH.match(beginning))


def _is_first(messages: list[ChatMessage]) -> bool:
    return sum(m.role.lower() == "user" for m in messages) == 1 and all(m.role.lower() != "assistant" for m in messages)


def _has_image(message: ChatMessage) -> bool:
    parts = message.content if isinstance(message.content, list) else []
    return any(not isinstance(part, str) and text_of_part(part) is None for part in parts)


# --- Open WebUI's tasks ---

# The key of the JSON that a task expects, and the kind of the task.
_TASKS = {
    "title": "title",
    "tags": "tags",
    "follow_ups": "follow-ups",
    "queries": "queries",
    "prompt": "prompt",
    "text": "completion",
}
_TASK_KEY = re.compile(r"[\"'](" + "|".join(_TASKS) + r")[\"']\s*:")


def _json_for_key(key: str, *, first: str, newest: str) -> str:
    """Return the JSON for a key, from the first and the newest message of the user."""
    values: dict[str, Any] = {"title": _title(first), "tags": ["Pictures"], "prompt": newest, "text": ""}
    return json.dumps({key: values.get(key, [])}, ensure_ascii=False)


def _match_task(_body: ChatRequest, text: str) -> ClientProbe | None:
    if not text.startswith(_TASK_PREFIX):
        return None
    first, newest = _first_message(text), (_quoted_messages(text) or [""])[-1]
    instruction = _HISTORY.sub(" ", text)
    if match := _TASK_KEY.search(instruction):
        return ClientProbe(_TASKS[match[1]], _json_for_key(match[1], first=first, newest=newest))
    if "emoji" in instruction.lower():
        return ClientProbe("emoji", "🖼️")
    if re.search(r"\btitle\b", instruction[:_MAX_CLASSIFIED], re.IGNORECASE):
        return ClientProbe("title", _title(first))
    return ClientProbe("task", _NOTHING_GENERATED)


# --- JSON requested by `response_format` ---


def _json_answer(body: ChatRequest, text: str) -> str:
    wrapped = (body.response_format or {}).get("json_schema")
    schema = wrapped.get("schema") if isinstance(wrapped, dict) else None
    if not isinstance(schema, dict):
        match = _TASK_KEY.search("\n".join(text_of(m)[: _MAX_CLASSIFIED * 4] for m in body.messages))
        key = match[1] if match else "title"
        return _json_for_key(key, first=text, newest=text)
    return json.dumps(_minimal_value(schema, text, depth=0), ensure_ascii=False)


def _minimal_value(schema: Any, text: str, *, depth: int) -> Any:
    """Return a minimal value of a JSON schema; properties called title or topic get a title."""
    if not isinstance(schema, dict) or depth > 8:
        return None
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    properties = schema.get("properties")
    if kind == "object" or isinstance(properties, dict):
        fields = properties if isinstance(properties, dict) else {}
        return {
            name: _title(text) if name in {"title", "topic"} else _minimal_value(value, text, depth=depth + 1)
            for name, value in fields.items()
        }
    return {"string": "", "array": [], "number": 0, "integer": 0, "boolean": False}.get(str(kind))


# --- titles without a model ---


def _first_user_text(messages: list[ChatMessage], prompt: str) -> str:
    """Return the first text of the user: in the quoted history, else in the messages before the instruction."""
    quoted = _first_message(prompt)
    if quoted != prompt:
        return quoted
    for message in messages:
        text = text_of(message).strip()
        if message.role.lower() == "user" and text and not _is_title_request(text):
            return _first_message(text)
    return ""


def _first_message(text: str) -> str:
    """Return the first user message of a quoted conversation; the text itself when none is quoted."""
    messages = _quoted_messages(text)
    history = _HISTORY.search(text)
    return messages[0] if messages else (history[2].strip() if history else text)


def _quoted_messages(text: str) -> list[str]:
    """Return the user messages of a quoted conversation, in order."""
    history = _HISTORY.search(text)
    quoted = history[2] if history else text
    return [line.strip() for line in _USER_LINE.findall(quoted) or _QUOTED_JSON.findall(quoted)]


def _title(text: str) -> str:
    """Return a title from the first words of a text; scripts without spaces are cut by characters."""
    plain = " ".join(_FLAG.sub(" ", _MARKUP.sub(r" \1 ", text[:2000])).split())
    words = plain.split(" ")[:_MAX_TITLE_WORDS]
    title = ""
    for word in words:
        if title and len(title) + len(word) >= _MAX_TITLE_CHARS:
            break
        title = f"{title} {word}".strip()
    title = title[: _MAX_TITLE_CHARS // 2 if not title.isascii() else _MAX_TITLE_CHARS].strip(
        " .,;:!?，。；：！？\"'“”"
    )
    return title[:1].upper() + title[1:] if title else _DEFAULT_TITLE
