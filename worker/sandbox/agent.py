"""The agent: a scripted event stream that answers a conversation and can start image and video jobs.

Besides the script words of `scripts.py`, the last user message can contain: `draw`/`picture` or `[[image:N]]`,
`[[video:N]]` to start jobs; `[[replace]]` and `[[complete]]` for the other format of the tool results and of the end;
`[[truncate]]` to close the stream early, `[[cut]]` to break the connection, `[[silent]]` to stop sending, each also
with `:tools` (after the tool results); `[[reject]]` for a refusal inside the stream, `[[json:CODE]]` for one instead of
the stream; `[[pause:S]]` between pieces, `[[leak]]`, `[[repeat]]`, `[[lost]]` (a call without a job), `[[words:N]]`.
"""

import asyncio
import re
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from worker.sandbox import responses as sandbox_responses
from worker.sandbox.models.image_models import IMAGE_MODELS, PRICES
from worker.sandbox.models.video_models import CREDITS_PER_SECOND, VIDEO_MODELS, video_size
from worker.sandbox.requests.fields import RefusedError, as_objects, get_object, is_int, is_uuid, parse_object, require
from worker.sandbox.requests.order import Order, VideoOptions
from worker.sandbox.scripts import plain_text, read_script, script_words

if TYPE_CHECKING:
    from worker.sandbox.state import Call, SandboxState

_IMAGE_WORDS = re.compile(r"\b(?:draw|paint|pictures?|images?)\b|画|图", re.IGNORECASE)
_VIDEO_WORDS = re.compile(r"\b(?:videos?|film)\b|视频", re.IGNORECASE)
_RATIO = re.compile(r"\b(16:9|9:16|1:1|4:3|3:4)\b")
_MAX_CALLS = 12
_IMAGE_MODEL, _SIZES = "high_aes_general_v40", {"1:1": (1328, 1328), "16:9": (1664, 936), "9:16": (936, 1664)}
_VIDEO_MODEL = "dreamina_ic_generate_video_model_vgfm_3.0"
_VIDEO_SECONDS = 5
_PATH = "/message/content/content_parts/0/text"


@dataclass(frozen=True)
class ConversationScript:
    """The parsed script of a conversation."""

    prompt: str
    words: dict[str, str]

    @property
    def text(self) -> str:
        return plain_text(self.prompt)

    @property
    def kinds(self) -> list[str]:
        """Kinds of the tool calls in order."""
        images = self._number("image", int(bool(_IMAGE_WORDS.search(self.text))))
        videos = self._number("video", int(bool(_VIDEO_WORDS.search(self.text))))
        return (["image"] * images + ["video"] * videos)[:_MAX_CALLS]

    @property
    def pause(self) -> float:
        try:
            return min(max(float(self.words.get("pause", "0.004")), 0.0), 600.0)
        except ValueError:
            return 0.004

    def has(self, word: str, where: str = "") -> bool:
        return word in self.words and self.words[word].lower() == where

    def _number(self, word: str, default: int) -> int:
        value = self.words.get(word)
        if value is None:
            return default
        return int(value) if value.isascii() and value.isdigit() and len(value) < 4 else 1


def converse(state: "SandboxState", call: "Call") -> Response:
    """Check the request and answer it with an event stream."""
    try:
        conversation_id, prompt = _read(call)
    except RefusedError as error:
        state.record_violation(call, error.code, error.detail)
        return sandbox_responses.refusal("mweb", error.code, call.now)
    if call.account.behaviour.shark:
        return sandbox_responses.refusal("mweb", "-6", call.now)
    script, conversation = read_script(prompt), ConversationScript(prompt, script_words(prompt))
    call.delay = script.latency
    fault = state.take_fault("before", script.before, prompt)
    if fault:
        return sandbox_responses.fault_response(fault)
    code = script.refuse or ("1018" if call.account.behaviour.limited else "") or conversation.words.get("json", "")
    entry = state.ledger.record_conversation(conversation_id, call.account.name, prompt, call.now)
    if code:
        entry["ended"] = code
        return sandbox_responses.refusal("mweb", code, call.now)
    fault = state.take_fault("after", script.after, prompt)
    if fault:
        return sandbox_responses.fault_response(fault)
    return AgentStream(_stream_events(state, call, conversation, entry))


def _read(call: "Call") -> tuple[str, str]:
    """Validate the request and return the conversation id and the last user message."""
    require(call.headers.get("accept") == "text/event-stream", "Accept is not text/event-stream")
    for name in ("region", "web_version", "da_version"):
        require(call.query.get(name), f"{name} is missing in the query")
    require(call.query.get("web_component_open_flag") == "1", "web_component_open_flag is not 1")
    body = parse_object(call.body, "body")
    require(set(body) == {"conversation_id", "messages", "version"}, "the body does not have exactly its three fields")
    require(is_uuid(body["conversation_id"]), "conversation_id is not a UUID")
    require(body["version"] == "3.0.0", "version is not 3.0.0")
    messages = as_objects(body["messages"], "messages")
    require(messages, "messages is empty")
    texts = [(_role(message), _message_text(message, body["conversation_id"])) for message in messages]
    user_texts = [text for role, text in texts if role == "user"]
    require(user_texts, "no message of a user")
    return body["conversation_id"], user_texts[-1]


def _role(message: dict[str, Any]) -> str:
    role = get_object(message, "author").get("role")
    require(role in {"user", "assistant"}, f"author.role {str(role)[:20]!r} is neither user nor assistant")
    return str(role)


def _message_text(message: dict[str, Any], conversation_id: str) -> str:
    require(is_uuid(message.get("id")), "message id is not a UUID")
    require(is_int(message.get("create_time")) and message["create_time"] > 10**12, "create_time is not milliseconds")
    require(message.get("tools") == [], "tools is not an empty array")
    metadata = get_object(message, "metadata")
    require(
        metadata.get("conversation_id") == conversation_id,
        "metadata.conversation_id is not the conversation_id of the body",
    )
    require(metadata.get("is_visually_hidden_from_conversation") is False, "the message is hidden")
    require(metadata.get("parent_message_id") == "", "parent_message_id is not empty")
    parts = as_objects(get_object(message, "content").get("content_parts"), "content_parts")
    texts = [part.get("text") for part in parts]
    require(texts and all(isinstance(text, str) and text.strip() for text in texts), "a message has no text")
    return "".join(str(text) for text in texts)


class AgentStream(StreamingResponse):
    """An event stream that can end with a broken connection."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        super().__init__(pieces, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except ConnectionCutError:
            await sandbox_responses.ResetConnection()(scope, receive, send)


class ConnectionCutError(Exception):
    """The script breaks the connection here."""


async def _stream_events(
    state: "SandboxState", call: "Call", conversation: ConversationScript, entry: dict[str, Any]
) -> AsyncIterator[bytes]:
    try:
        for event in _events(state, call, conversation, entry):
            for piece in _split(event):
                yield piece
                # Without a pause the pieces would be sent together.
                await asyncio.sleep(conversation.pause / 2)
        if entry.get("then") == "silent":
            await asyncio.sleep(3600)
        if entry.get("then") == "cut":
            raise ConnectionCutError
    finally:
        # A client that disconnects ends the stream here.
        entry["ended"] = entry.get("then") or entry.get("ended") or "hung up"


def _split(event: bytes) -> list[bytes]:
    """Split an event in two pieces, inside a multi-byte character if there is one."""
    inside = next((n for n, byte in enumerate(event) if 0x80 <= byte < 0xC0), len(event) // 2)
    return [event[:inside], event[inside:]]


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"


def _message(role: str, text: str | None, status: str, number: str, **more: Any) -> bytes:
    parts = [] if text is None else [{"text": text}]
    content = {"content_parts": parts}
    data = {"id": number, "author": {"role": role}, "content": content, "status": status, "metadata": {}, **more}
    return _event("message", data)


def _text_delta(text: str) -> bytes:
    return _event("delta", {"path": _PATH, "op": "append", "value": text})


def _events(
    state: "SandboxState", call: "Call", conversation: ConversationScript, entry: dict[str, Any]
) -> Iterator[bytes]:
    """Yield the events in order. A job is started before the event that announces it."""
    if conversation.has("reject"):
        entry["ended"] = "1017"
        yield _event("message", {"event_data": {"submit_info": {"code": 1017, "msg": "CheckPermission"}}})
        return
    answer = str(uuid.uuid4())
    yield _event("handshake", {"thread_id": call.account.uid, "conversation_id": entry["conversation_id"]})
    yield _message("assistant", "", "in_progress", answer)
    kinds = _affordable(call, conversation)
    pieces = _opening_text(conversation, kinds)
    for number, piece in enumerate(pieces):
        if number == (len(pieces) + 1) // 2 and (ending := _break_at(conversation, "")):
            entry["then"] = ending
            return
        yield _text_delta(piece)
    calls = [f"call_{uuid.uuid4().hex[:12]}" for _ in kinds]
    ratio = match[1] if (match := _RATIO.search(conversation.text)) else "1:1"
    yield from _tool_calls(conversation, calls, kinds, ratio)
    extra: dict[str, Any] = {} if kinds else {"end_turn": True}
    yield _message("assistant", None, "finished_successfully", answer, **extra)
    yield from _tool_results(state, call, conversation, calls=calls, kinds=kinds, ratio=ratio)
    if ending := _break_at(conversation, "tools"):
        entry["then"] = ending
        return
    if kinds:
        yield _message("assistant", "Done — 完成 ✅", "finished_successfully", str(uuid.uuid4()), end_turn=True)
    entry["ended"] = "0"
    yield _end_event(conversation)


def _break_at(conversation: ConversationScript, where: str) -> str:
    return next((word for word in ("truncate", "cut", "silent") if conversation.has(word, where)), "")


def _end_event(conversation: ConversationScript) -> bytes:
    if "complete" in conversation.words:
        return _event("stream_complete", {"success": True, "error_code": 0})
    return _event("system", {"type": "stream_complete"})


def _opening_text(conversation: ConversationScript, kinds: list[str]) -> list[str]:
    count = conversation.words.get("words", "")
    if count.isascii() and count.isdigit() and len(count) < 6:
        return [f"词{n} " for n in range(int(count))]
    if kinds:
        text = "I will make that now — 我来画 🎨 …"
    elif conversation.kinds:
        text = "Not enough credits are left — 积分不足。"
    else:
        text = f"You said: “{conversation.text}” — 好的 🙂"
    return re.findall(r"\S+\s*", text)


def _affordable(call: "Call", conversation: ConversationScript) -> list[str]:
    price = sum(_price(kind) for kind in conversation.kinds)
    return conversation.kinds if call.account.credits >= price else []


def _price(kind: str) -> int:
    return CREDITS_PER_SECOND * _VIDEO_SECONDS if kind == "video" else PRICES["1k"]


def _tool_calls(conversation: ConversationScript, calls: list[str], kinds: list[str], ratio: str) -> Iterator[bytes]:
    for number, (call_id, kind) in enumerate(zip(calls, kinds, strict=True)):
        arguments = orjson.dumps({"prompt": conversation.text, "ratio": ratio}).decode()
        name = "text2video" if kind == "video" else "text2image"
        value = {"id": call_id, "type": "function", "func": {"name": name, "arguments": arguments}}
        event = {"path": f"/message/tool_calls/{number}", "op": "add", "value": orjson.dumps(value).decode()}
        yield _event("delta", event)
        if "repeat" in conversation.words:
            yield _event("delta", event)


def _tool_results(
    state: "SandboxState",
    call: "Call",
    conversation: ConversationScript,
    *,
    calls: list[str],
    kinds: list[str],
    ratio: str,
) -> Iterator[bytes]:
    for call_id, kind in zip(calls[: -1 if "lost" in conversation.words else None], kinds, strict=False):
        job = state.accept(
            call, _order(conversation.prompt, kind, ratio), read_script(conversation.prompt), at=time.time()
        )
        result = {"submit_id": job.order.submit_id, "history_id": job.history_id, "resource_type": kind}
        text, message_id, extra = (
            orjson.dumps(result).decode(),
            str(uuid.uuid4()),
            {"metadata": {"tool_call_id": call_id}},
        )
        if "replace" in conversation.words:
            yield _message("tool", "", "in_progress", message_id, **extra)
            yield _event("delta", {"path": _PATH, "op": "replace", "value": text})
        else:
            yield _message("tool", text, "finished_successfully", message_id, **extra)
        if "leak" in conversation.words:
            yield _text_delta(text)


def _order(prompt: str, kind: str, ratio: str) -> Order:
    submit_id, seed = str(uuid.uuid4()), zlib.crc32(prompt.encode())
    if kind == "video":
        width, height = video_size("720p", ratio)
        return Order(
            submit_id=submit_id, prompt=prompt, model=VIDEO_MODELS[_VIDEO_MODEL], seed=seed, width=width, height=height,
            count=1, price=_price(kind), kind="video", video=VideoOptions(_VIDEO_SECONDS, "720p", ratio, 24),
        )  # fmt: skip
    width, height = _SIZES.get(ratio, _SIZES["1:1"])
    return Order(
        submit_id=submit_id, prompt=prompt, model=IMAGE_MODELS[_IMAGE_MODEL], seed=seed, width=width, height=height,
        count=1, price=_price(kind),
    )  # fmt: skip
