"""The agent: a scripted event stream that answers a conversation and may start pictures and videos on the way.

Words of the last user message script it, beside those of `scenes.py`: `draw`/`picture` or `[[image:N]]`, `[[video:N]]`
start jobs; `[[replace]]` and `[[complete]]` choose the other form of the tool results and of the end; `[[truncate]]`
closes the stream too early, `[[cut]]` breaks the connection, `[[silent]]` goes quiet, each also with `:tools`
(behind the tools); `[[reject]]` refuses inside the stream, `[[json:CODE]]` instead of it; `[[pause:S]]` between pieces,
`[[leak]]`, `[[repeat]]`, `[[lost]]` (a call without a job), `[[words:N]]`.
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
from worker.sandbox.models.image_models import MODELS, PRICES
from worker.sandbox.models.video_models import CREDITS_PER_SECOND, VIDEO_MODELS, video_size
from worker.sandbox.requests.fields import RefusedError, as_object, child, is_int, is_uuid, need, objects
from worker.sandbox.requests.order import Film, Order
from worker.sandbox.scripts import plain_text, read_script, script_words

if TYPE_CHECKING:
    from worker.sandbox.state import Call, World

_DRAWS = re.compile(r"\b(?:draw|paint|pictures?|images?)\b|画|图", re.IGNORECASE)
_FILMS = re.compile(r"\b(?:videos?|film)\b|视频", re.IGNORECASE)
_RATIO = re.compile(r"\b(16:9|9:16|1:1|4:3|3:4)\b")
_MOST_CALLS = 12
_PICTURE_MODEL, _SIDE = "high_aes_general_v40", {"1:1": (1328, 1328), "16:9": (1664, 936), "9:16": (936, 1664)}
_VIDEO_MODEL = "dreamina_ic_generate_video_model_vgfm_3.0"
_VIDEO_SECONDS = 5
_PATH = "/message/content/content_parts/0/text"


@dataclass(frozen=True)
class Talk:
    """What the script of a conversation asks for."""

    prompt: str
    words: dict[str, str]

    @property
    def text(self) -> str:
        return plain_text(self.prompt)

    @property
    def kinds(self) -> list[str]:
        """The kinds of its tool calls, in order."""
        images = self._number("image", int(bool(_DRAWS.search(self.text))))
        videos = self._number("video", int(bool(_FILMS.search(self.text))))
        return (["image"] * images + ["video"] * videos)[:_MOST_CALLS]

    @property
    def pause(self) -> float:
        try:
            return min(max(float(self.words.get("pause", "0.004")), 0.0), 600.0)
        except ValueError:
            return 0.004

    def does(self, word: str, where: str = "") -> bool:
        return word in self.words and self.words[word].lower() == where

    def _number(self, word: str, default: int) -> int:
        value = self.words.get(word)
        if value is None:
            return default
        return int(value) if value.isascii() and value.isdigit() and len(value) < 4 else 1


def converse(world: "World", call: "Call") -> Response:
    """Check the request, then answer it with a stream."""
    try:
        conversation_id, prompt = _read(call)
    except RefusedError as problem:
        world.violation(call, problem.code, problem.detail)
        return sandbox_responses.refusal("mweb", problem.code, call.now)
    if call.account.role.shark:
        return sandbox_responses.refusal("mweb", "-6", call.now)
    script, talk = read_script(prompt), Talk(prompt, script_words(prompt))
    call.hold = script.latency
    fault = world.fire("before", script.before, prompt)
    if fault:
        return sandbox_responses.broken(fault)
    code = script.refuse or ("1018" if call.account.role.limited else "") or talk.words.get("json", "")
    note = world.ledger.conversation(conversation_id, call.account.name, prompt, call.now)
    if code:
        note["ended"] = code
        return sandbox_responses.refusal("mweb", code, call.now)
    fault = world.fire("after", script.after, prompt)
    if fault:
        return sandbox_responses.broken(fault)
    return AgentStream(_play(world, call, talk, note))


def _read(call: "Call") -> tuple[str, str]:
    """The conversation id and the last user message of a well-formed request."""
    need(call.headers.get("accept") == "text/event-stream", "Accept is not text/event-stream")
    for name in ("region", "web_version", "da_version"):
        need(call.query.get(name), f"{name} is missing in the query")
    need(call.query.get("web_component_open_flag") == "1", "web_component_open_flag is not 1")
    body = as_object(call.body, "body")
    need(set(body) == {"conversation_id", "messages", "version"}, "the body has not exactly its three fields")
    need(is_uuid(body["conversation_id"]), "conversation_id is not a UUID")
    need(body["version"] == "3.0.0", "version is not 3.0.0")
    messages = objects(body["messages"], "messages")
    need(messages, "messages is empty")
    said = [(_role(message), _message_text(message, body["conversation_id"])) for message in messages]
    asked = [text for role, text in said if role == "user"]
    need(asked, "no message of a user")
    return body["conversation_id"], asked[-1]


def _role(message: dict[str, Any]) -> str:
    role = child(message, "author").get("role")
    need(role in {"user", "assistant"}, f"author.role {str(role)[:20]!r} is neither user nor assistant")
    return str(role)


def _message_text(message: dict[str, Any], conversation_id: str) -> str:
    need(is_uuid(message.get("id")), "message id is not a UUID")
    need(is_int(message.get("create_time")) and message["create_time"] > 10**12, "create_time is not milliseconds")
    need(message.get("tools") == [], "tools is not an empty array")
    metadata = child(message, "metadata")
    need(metadata.get("conversation_id") == conversation_id, "metadata.conversation_id is another")
    need(metadata.get("is_visually_hidden_from_conversation") is False, "the message is hidden")
    need(metadata.get("parent_message_id") == "", "parent_message_id is not empty")
    parts = objects(child(message, "content").get("content_parts"), "content_parts")
    texts = [part.get("text") for part in parts]
    need(texts and all(isinstance(text, str) and text.strip() for text in texts), "a message without text")
    return "".join(str(text) for text in texts)


class AgentStream(StreamingResponse):
    """An event stream that may end in a torn connection."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        super().__init__(pieces, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except TornError:
            await sandbox_responses.Reset()(scope, receive, send)


class TornError(Exception):
    """The script tears the connection here."""


async def _play(world: "World", call: "Call", talk: Talk, note: dict[str, Any]) -> AsyncIterator[bytes]:
    try:
        for event in _story(world, call, talk, note):
            for piece in _split(event):
                yield piece
                # Pieces that follow at once would travel together.
                await asyncio.sleep(talk.pause / 2)
        if note.get("then") == "silent":
            await asyncio.sleep(3600)
        if note.get("then") == "cut":
            raise TornError
    finally:
        # A client that hangs up ends the story here.
        note["ended"] = note.get("then") or note.get("ended") or "hung up"


def _split(event: bytes) -> list[bytes]:
    """Two pieces, cut inside a character of several bytes wherever the event has one."""
    inside = next((n for n, byte in enumerate(event) if 0x80 <= byte < 0xC0), len(event) // 2)
    return [event[:inside], event[inside:]]


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"


def _message(role: str, text: str | None, status: str, number: str, **more: Any) -> bytes:
    parts = [] if text is None else [{"text": text}]
    content = {"content_parts": parts}
    data = {"id": number, "author": {"role": role}, "content": content, "status": status, "metadata": {}, **more}
    return _event("message", data)


def _said(text: str) -> bytes:
    return _event("delta", {"path": _PATH, "op": "append", "value": text})


def _story(world: "World", call: "Call", talk: Talk, note: dict[str, Any]) -> Iterator[bytes]:
    """The events in order. What it starts has started when the event that tells it is asked for."""
    if talk.does("reject"):
        note["ended"] = "1017"
        yield _event("message", {"event_data": {"submit_info": {"code": 1017, "msg": "CheckPermission"}}})
        return
    answer = str(uuid.uuid4())
    yield _event("handshake", {"thread_id": call.account.uid, "conversation_id": note["conversation_id"]})
    yield _message("assistant", "", "in_progress", answer)
    kinds = _affordable(call, talk)
    words = _opening(talk, kinds)
    for number, word in enumerate(words):
        if number == (len(words) + 1) // 2 and (then := _breaks(talk, "")):
            note["then"] = then
            return
        yield _said(word)
    calls = [f"call_{uuid.uuid4().hex[:12]}" for _ in kinds]
    ratio = found[1] if (found := _RATIO.search(talk.text)) else "1:1"
    yield from _calls(talk, calls, kinds, ratio)
    ended: dict[str, Any] = {} if kinds else {"end_turn": True}
    yield _message("assistant", None, "finished_successfully", answer, **ended)
    yield from _results(world, call, talk, calls=calls, kinds=kinds, ratio=ratio)
    if then := _breaks(talk, "tools"):
        note["then"] = then
        return
    if kinds:
        yield _message("assistant", "Done — 完成 ✅", "finished_successfully", str(uuid.uuid4()), end_turn=True)
    note["ended"] = "0"
    yield _end(talk)


def _breaks(talk: Talk, where: str) -> str:
    return next((word for word in ("truncate", "cut", "silent") if talk.does(word, where)), "")


def _end(talk: Talk) -> bytes:
    if "complete" in talk.words:
        return _event("stream_complete", {"success": True, "error_code": 0})
    return _event("system", {"type": "stream_complete"})


def _opening(talk: Talk, kinds: list[str]) -> list[str]:
    count = talk.words.get("words", "")
    if count.isascii() and count.isdigit() and len(count) < 6:
        return [f"词{n} " for n in range(int(count))]
    if kinds:
        text = "I will make that now — 我来画 🎨 …"
    elif talk.kinds:
        text = "Not enough credits are left — 积分不足。"
    else:
        text = f"You said: “{talk.text}” — 好的 🙂"
    return re.findall(r"\S+\s*", text)


def _affordable(call: "Call", talk: Talk) -> list[str]:
    price = sum(_price(kind) for kind in talk.kinds)
    return talk.kinds if call.account.credits >= price else []


def _price(kind: str) -> int:
    return CREDITS_PER_SECOND * _VIDEO_SECONDS if kind == "video" else PRICES["1k"]


def _calls(talk: Talk, calls: list[str], kinds: list[str], ratio: str) -> Iterator[bytes]:
    for number, (call_id, kind) in enumerate(zip(calls, kinds, strict=True)):
        arguments = orjson.dumps({"prompt": talk.text, "ratio": ratio}).decode()
        name = "text2video" if kind == "video" else "text2image"
        value = {"id": call_id, "type": "function", "func": {"name": name, "arguments": arguments}}
        event = {"path": f"/message/tool_calls/{number}", "op": "add", "value": orjson.dumps(value).decode()}
        yield _event("delta", event)
        if "repeat" in talk.words:
            yield _event("delta", event)


def _results(
    world: "World", call: "Call", talk: Talk, *, calls: list[str], kinds: list[str], ratio: str
) -> Iterator[bytes]:
    for call_id, kind in zip(calls[: -1 if "lost" in talk.words else None], kinds, strict=False):
        job = world.accept(call, _order(talk.prompt, kind, ratio), read_script(talk.prompt), at=time.time())
        result = {"submit_id": job.order.submit_id, "history_id": job.history_id, "resource_type": kind}
        text, tool, who = orjson.dumps(result).decode(), str(uuid.uuid4()), {"metadata": {"tool_call_id": call_id}}
        if "replace" in talk.words:
            yield _message("tool", "", "in_progress", tool, **who)
            yield _event("delta", {"path": _PATH, "op": "replace", "value": text})
        else:
            yield _message("tool", text, "finished_successfully", tool, **who)
        if "leak" in talk.words:
            yield _said(text)


def _order(prompt: str, kind: str, ratio: str) -> Order:
    submit_id, seed = str(uuid.uuid4()), zlib.crc32(prompt.encode())
    if kind == "video":
        width, height = video_size("720p", ratio)
        return Order(
            submit_id=submit_id, prompt=prompt, model=VIDEO_MODELS[_VIDEO_MODEL], seed=seed, width=width, height=height,
            count=1, price=_price(kind), kind="video", film=Film(_VIDEO_SECONDS, "720p", ratio, 24),
        )  # fmt: skip
    width, height = _SIDE.get(ratio, _SIDE["1:1"])
    return Order(
        submit_id=submit_id, prompt=prompt, model=MODELS[_PICTURE_MODEL], seed=seed, width=width, height=height,
        count=1, price=_price(kind),
    )  # fmt: skip
