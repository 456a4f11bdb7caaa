"""Calls that front ends make beside a conversation: titles, tags, follow-ups, tests of the connection.

They ask the chosen model, and a model that makes pictures would draw them, for money. They are recognised here and
answered from the conversation itself, without any model (openai-compat 9.11). Nothing here reads settings or rows.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from api.chat.schemas import ChatMessage, ChatRequest, last_user, text_of, text_of_part

_TASK = "### Task:"
_FEW_TOKENS = 16
# What a test of a connection says; nobody wants these drawn.
_GREETINGS = frozenset(
    {"hi", "hello", "hey", "test", "testing", "ping", "ok", "say this is a test", "你好", "您好", "测试", "在吗", "嗨"}
)
# Only the beginning of a text is asked what it is for: histories and documents follow it.
_LOOKED_AT = 600
_TALK = r"\b(?:conversation|chat|discussion|dialog(?:ue)?)\b"
_BRIEF = re.compile(r"\b(?:words?|characters?|short|brief|concise|punctuation|quotation|lead-in)\b", re.IGNORECASE)
_NAMES_A_CHAT = re.compile(
    rf"""\b(?:generate|provide|create|write|give|suggest|choose|reply|respond|answer)\b
        .{{0,120}}?\b(?:title|topic)\b.{{0,80}}?{_TALK}
    | \b(?:summari[sz]e|sum\ up|name|title)\b.{{0,80}}?{_TALK}.{{0,80}}?\b(?:title|topic)\b
    | \b(?:conversation|chat)\ (?:summari[sz]er|namer|titler)\b""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
# A title that is to be seen in a picture is no title of a chat.
_SEEN = re.compile(r"\b(?:picture|image|poster|card|logo|cover|banner|illustration|screen)s?\b", re.IGNORECASE)
_NAMES_A_CHAT_ZH = re.compile(
    r"(?=.*(?:标题|主题|话题))(?=.*(?:总结|概括|简要|返回|生成))(?=.*(?:对话|会话|聊天|这句话))(?=.*(?:字|标点))",
    re.DOTALL,
)
_SUMS_UP = re.compile(
    r"\bsummari[sz]e\b[\s\S]*\b(?:discussion|conversation|chat)\b[\s\S]*\b(?:prompt|context|words?)\b"
    r"|总结[\s\S]*(?:对话|会话|聊天)[\s\S]*(?:上下文|提示|字)",
    re.IGNORECASE,
)
_PICTURE_WISH = re.compile(
    r"""\b(?:draw|paint|sketch|render|illustrat\w*|generate|create|design|make|imagine|animate|edit|visuali[sz]e
        |pictures?|images?|photos?|drawings?|paintings?|portraits?|wallpapers?|posters?|logos?|icons?|videos?|clips?)\b
    | [画图绘片拍] | 视频 | 海报 | 生成 | 设计 | 头像 | 壁纸
    | \[\[ | (?<!\S)-(?:re|ra|d)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_HISTORY = re.compile(r"<(chat_history|conversation|messages)>([\s\S]*?)(?:</\1>|\Z)", re.IGNORECASE)
_SPOKEN = re.compile(
    r"(?:^|\n)[^\S\n]*(?:\|\|>|\*\*|[-*] )?(?:user|human|用户)(?:\*\*)?[:：](?:\*\*)?[^\S\n]*\n?(.+)", re.IGNORECASE
)
# Some clients quote the conversation as JSON.
_QUOTED = re.compile(r'"(?:mainText|content|text)"\s*:\s*"((?:[^"\\]|\\.)*)"')
_MARKUP = re.compile(
    r"!\[[^\[\]]{0,500}\]\([^()\s]*\)|\[([^\[\]]{0,500})\]\([^()\s]*\)|\[\[[^\[\]]*\]\]|<[^<>]{1,200}>|[`*_#>|]+"
)
_FLAG = re.compile(r"(?<!\S)-(?:re|ra|d)\s+\S+", re.IGNORECASE)
_MOST_WORDS = 6
_MOST_LETTERS = 48
_NO_TITLE = "New chat"


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """What such a call was for, and the answer."""

    kind: str
    answer: str


def read_housekeeping(body: ChatRequest) -> Housekeeping | None:
    """The answer to a call that nobody wants a picture for; None = it is a wish for one."""
    asked, text = _asked(body)
    rules = [_task, _naming, _summary, _json_wanted, *([] if _has_picture(asked) else [_test, _tools])]
    return next((found for rule in rules if (found := rule(body, text))), None)


def read_agent_housekeeping(body: ChatRequest) -> Housekeeping | None:
    """The same of a chat with the agent. It talks: a greeting, tools, JSON and tasks of no known form are for it."""
    _, text = _asked(body)
    if (task := _task(body, text)) and task.kind != "task":
        return task
    return _naming(body, text) or _few_tokens(body)


def _asked(body: ChatRequest) -> tuple[ChatMessage, str]:
    """The last user message and its text."""
    place = last_user(body.messages)
    asked = body.messages[place] if place is not None else ChatMessage(role="user")
    return asked, text_of(asked).strip()


def _naming(body: ChatRequest, text: str) -> Housekeeping | None:
    instruction = next((text_of(m).strip() for m in body.messages if m.role.lower() in {"system", "developer"}), "")
    if _names_a_chat(text) or _names_a_chat(instruction):
        return Housekeeping("title", _title(_conversation(body.messages, text)))
    return None


def _summary(body: ChatRequest, _text: str) -> Housekeeping | None:
    if _SUMS_UP.search(text_of(body.messages[-1])[:_LOOKED_AT]):
        return Housekeeping("summary", "The user asked for pictures; the newest wish stands in the newest message.")
    return None


def _json_wanted(body: ChatRequest, text: str) -> Housekeeping | None:
    if str((body.response_format or {}).get("type", "")).startswith("json"):
        return Housekeeping("json", _json_answer(body, _conversation(body.messages, text)))
    return None


def _test(body: ChatRequest, text: str) -> Housekeeping | None:
    if text.lower().rstrip("!.?！。？ ") in _GREETINGS and _is_first(body.messages):
        return Housekeeping("test", "ok")
    return _few_tokens(body)


def _few_tokens(body: ChatRequest) -> Housekeeping | None:
    # Zero and less mean "no limit" to the clients that send them.
    few = any(0 < (most or 0) <= _FEW_TOKENS for most in (body.max_tokens, body.max_completion_tokens))
    return Housekeeping("test", "ok") if few else None


def _tools(body: ChatRequest, text: str) -> Housekeeping | None:
    return Housekeeping("tools", _NOTHING_MADE) if body.tools and not _PICTURE_WISH.search(text) else None


_NOTHING_MADE = (
    "Nothing was made: this model only makes pictures or videos, and the message asks for none. "
    'Say what to make, for example "draw a red paper boat".'
)


def _names_a_chat(text: str) -> bool:
    beginning = text[:_LOOKED_AT]
    found = _NAMES_A_CHAT.search(beginning)
    in_english = found is not None and not _SEEN.search(found[0]) and _BRIEF.search(beginning)
    return bool(in_english) or bool(_NAMES_A_CHAT_ZH.match(beginning))


def _is_first(messages: list[ChatMessage]) -> bool:
    return sum(m.role.lower() == "user" for m in messages) == 1 and all(m.role.lower() != "assistant" for m in messages)


def _has_picture(message: ChatMessage) -> bool:
    parts = message.content if isinstance(message.content, list) else []
    return any(not isinstance(part, str) and text_of_part(part) is None for part in parts)


# --- Open WebUI's tasks ---

# The key of the JSON that a task wants, and what it is for.
_TASKS = {
    "title": "title",
    "tags": "tags",
    "follow_ups": "follow-ups",
    "queries": "queries",
    "prompt": "prompt",
    "text": "completion",
}
_WANTED_KEY = re.compile(r"[\"'](" + "|".join(_TASKS) + r")[\"']\s*:")


def _keyed(key: str, *, first: str, newest: str) -> str:
    """The JSON for a key, from the first and the newest words of the user."""
    values: dict[str, Any] = {"title": _title(first), "tags": ["Pictures"], "prompt": newest, "text": ""}
    return json.dumps({key: values.get(key, [])}, ensure_ascii=False)


def _task(_body: ChatRequest, text: str) -> Housekeeping | None:
    if not text.startswith(_TASK):
        return None
    first, newest = _first_words(text), (_spoken(text) or [""])[-1]
    instruction = _HISTORY.sub(" ", text)
    if wanted := _WANTED_KEY.search(instruction):
        return Housekeeping(_TASKS[wanted[1]], _keyed(wanted[1], first=first, newest=newest))
    if "emoji" in instruction.lower():
        return Housekeeping("emoji", "🖼️")
    if re.search(r"\btitle\b", instruction[:_LOOKED_AT], re.IGNORECASE):
        return Housekeeping("title", _title(first))
    return Housekeeping("task", _NOTHING_MADE)


# --- JSON that is asked for by `response_format` ---


def _json_answer(body: ChatRequest, said: str) -> str:
    wrapped = (body.response_format or {}).get("json_schema")
    schema = wrapped.get("schema") if isinstance(wrapped, dict) else None
    if not isinstance(schema, dict):
        asked = _WANTED_KEY.search("\n".join(text_of(m)[: _LOOKED_AT * 4] for m in body.messages))
        key = asked[1] if asked else "title"
        return _keyed(key, first=said, newest=said)
    return json.dumps(_least_value(schema, said, depth=0), ensure_ascii=False)


def _least_value(schema: Any, said: str, *, depth: int) -> Any:
    """The smallest value of a JSON schema; what is called a title gets one."""
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
            name: _title(said) if name in {"title", "topic"} else _least_value(value, said, depth=depth + 1)
            for name, value in fields.items()
        }
    return {"string": "", "array": [], "number": 0, "integer": 0, "boolean": False}.get(str(kind))


# --- titles without a model ---


def _conversation(messages: list[ChatMessage], asked: str) -> str:
    """What the user said first: in the history that is quoted, else in the messages before the instruction."""
    quoted = _first_words(asked)
    if quoted != asked:
        return quoted
    for message in messages:
        said = text_of(message).strip()
        if message.role.lower() == "user" and said and not _names_a_chat(said):
            return _first_words(said)
    return ""


def _first_words(text: str) -> str:
    """The first thing a user says in a quoted conversation; the text itself when none is quoted."""
    spoken = _spoken(text)
    history = _HISTORY.search(text)
    return spoken[0] if spoken else (history[2].strip() if history else text)


def _spoken(text: str) -> list[str]:
    """What a user says in a quoted conversation, in order."""
    history = _HISTORY.search(text)
    quoted = history[2] if history else text
    return [said.strip() for said in _SPOKEN.findall(quoted) or _QUOTED.findall(quoted)]


def _title(said: str) -> str:
    """A few words of what was said; scripts without spaces are cut by letters."""
    plain = " ".join(_FLAG.sub(" ", _MARKUP.sub(r" \1 ", said[:2000])).split())
    words = plain.split(" ")[:_MOST_WORDS]
    title = ""
    for word in words:
        if title and len(title) + len(word) >= _MOST_LETTERS:
            break
        title = f"{title} {word}".strip()
    title = title[: _MOST_LETTERS // 2 if not title.isascii() else _MOST_LETTERS].strip(" .,;:!?，。；：！？\"'“”")
    return title[:1].upper() + title[1:] if title else _NO_TITLE
