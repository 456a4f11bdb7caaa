"""The agent (protocol section 9): the request body of a conversation, and the parser of its event stream.

The parser does no I/O: it takes bytes in chunks of any size and yields events. No complete recording of a stream
exists, so it accepts every known form and ignores everything else.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import orjson

from worker.core.errors import DreameryError
from worker.providers.base import Account
from worker.providers.conversation import AgentEvent, Conversation, JobStarted, StreamEnded, TextDelta, ToolCalled
from worker.providers.dreamina.error_codes import clean, error_code_for, message_for
from worker.providers.dreamina.http import refusal

_VERSION = "3.0.0"
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_CALL_PATH = re.compile(r"/message/tool_calls/\d+$")
# The agent sometimes leaks the JSON of its tool calls into its answer.
_LEAKED = ("submit_id", "history_id")
_MAX_LINE_CHARS = 4_000_000
# How the agent says that it could not pay. Long answers talk about something else.
_NO_CREDITS = re.compile(
    r"积分(?:余额)?(?:不足|不够|已用完|已耗尽)|(?:not enough|insufficient|run out of|out of|no (?:more )?) ?credits?\b",
    re.IGNORECASE,
)
_MAX_REFUSAL_CHARS = 400


def build_conversation_body(order: Conversation, conversation_id: str, now_ms: int) -> bytes:
    """Return the request body of section 9.1."""
    return orjson.dumps(
        {
            "conversation_id": conversation_id,
            "messages": [
                {
                    "author": {"role": turn.role},
                    "id": str(uuid4()),
                    "content": {"content_parts": [{"text": turn.text}]},
                    "metadata": {
                        "is_visually_hidden_from_conversation": False,
                        "conversation_id": conversation_id,
                        "parent_message_id": "",
                    },
                    "create_time": now_ms,
                    "tools": [],
                }
                for turn in order.messages
            ],
            "version": _VERSION,
        }
    )


class AgentStreamParser:
    """Parses the bytes of one stream into events. Call `feed` per chunk, and `close` at the end or when `over`."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._buffer = b""
        self._name, self._data = "", list[str]()
        self._complete = False  # an end marker was received
        self.over = False
        self._role, self._message_id, self._message_text = "", "", ""
        self._has_text, self._new_message = False, False
        self._answer = ""  # the beginning of all messages
        self._tool_call, self._tool_text, self._awaits_result = "", "", False
        self._calls: dict[str, str] = {}  # tool call id -> kind
        self._finished_calls: set[str] = set()
        self._started: set[str] = set()

    def feed(self, chunk: bytes) -> Iterator[AgentEvent]:
        """Yield the events that this chunk completes. Raises upstream's refusal of the conversation."""
        # Decode whole lines only: a chunk may end inside a UTF-8 character.
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        if len(self._buffer) > _MAX_LINE_CHARS:
            raise DreameryError("upstream_unreachable", detail="a line of the event stream is too long")
        for line in lines:
            if self.over:
                return
            yield from self._parse_line(line.removesuffix(b"\r"))

    def close(self) -> Iterator[AgentEvent]:
        """Yield the events that the end of the stream completes, then `StreamEnded`."""
        if not self.over:
            # The connection may close right after the last line, without the final empty line.
            yield from self._parse_line(self._buffer.removesuffix(b"\r"))
            yield from self._parse_line(b"")
        yield StreamEnded(complete=self._complete, lacks_credits=self._lacks_credits())

    def _lacks_credits(self) -> bool:
        short = len(self._answer) <= _MAX_REFUSAL_CHARS
        return not self._calls and not self._started and short and bool(_NO_CREDITS.search(self._answer))

    def _parse_line(self, line: bytes) -> Iterator[AgentEvent]:
        if not line:
            name, data = self._name, "\n".join(self._data)
            self._name, self._data = "", []
            if data:
                yield from self._parse_event(name, _json(data))
            return
        field, _, value = line.decode("utf-8", "replace").lstrip("\ufeff").partition(":")
        if field == "event":
            self._name = value.strip()
        elif field == "data":
            self._data.append(value.removeprefix(" "))

    def _parse_event(self, name: str, data: Any) -> Iterator[AgentEvent]:
        if not isinstance(data, dict):
            return
        self._check_refusal(data)
        if name == "delta":
            yield from self._parse_delta(data)
        elif name == "stream_complete" or data.get("type") == "stream_complete":
            self._finish(data)
        elif name in {"message", ""}:
            inner = data.get("message")
            yield from self._parse_message(inner if "author" not in data and isinstance(inner, dict) else data)
        # After the end marker of the answer, the job of a tool call may still follow.
        if self._complete and set(self._calls) <= self._finished_calls:
            self.over = True

    def _check_refusal(self, data: dict[str, Any]) -> None:
        """Raise for a refused `message` (section 9.2) or the envelope of section 3.1 inside the stream."""
        ret = data.get("ret")
        if isinstance(ret, str | int) and str(ret) not in {"", "0"}:
            raise refusal(str(ret), data, self._account)
        info = _dict(_dict(data.get("event_data")).get("submit_info"))
        self._raise_if_failed(info.get("code"), str(info.get("msg") or ""))

    def _finish(self, data: dict[str, Any]) -> None:
        self._raise_if_failed(data.get("error_code"), str(data.get("error_msg") or data.get("msg") or ""))
        self._complete = self.over = True

    def _raise_if_failed(self, number: Any, message: str) -> None:
        if not isinstance(number, str | int) or str(number) in {"", "0"}:
            return
        code = error_code_for(str(number), "", "", message)
        secret = self._account.session
        detail = clean(f"agent code={number} msg={message}", secret=secret)
        raise DreameryError(code, message_for(code, message, secret=secret), detail=detail)

    def _parse_message(self, data: dict[str, Any]) -> Iterator[AgentEvent]:
        metadata = _dict(data.get("metadata"))
        parts = _dict(data.get("content")).get("content_parts")
        texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        text = "".join(_clean_text(item) for item in texts if isinstance(item, str))
        self._role = str(_dict(data.get("author")).get("role") or "assistant")
        if self._role == "tool":
            self._tool_call, self._tool_text = str(metadata.get("tool_call_id") or ""), text
            self._awaits_result = True
            yield from self._parse_tool_result(text)
        elif self._role == "assistant":
            yield from self._parse_assistant(str(data.get("id") or ""), text)
        status = data.get("status")
        if status == "finished_successfully" and data.get("end_turn") is True:
            self._complete = True

    def _parse_assistant(self, message_id: str, text: str) -> Iterator[AgentEvent]:
        known = self._message_text if message_id and message_id == self._message_id else ""
        if known and text.startswith(known):
            # Upstream repeats the finished message as a whole; only its new end is emitted.
            text = text[len(known) :]
            self._message_text = known
        elif message_id != self._message_id:
            self._message_id, self._message_text = message_id, ""
            self._new_message = self._has_text
        yield from self._emit_text(text)

    def _emit_text(self, text: str) -> Iterator[AgentEvent]:
        if text and not any(word in text for word in _LEAKED):
            self._message_text += text
            # The site shows each message separately, so a paragraph break goes in between.
            gap = "\n\n" if self._new_message and not text.startswith("\n") else ""
            self._has_text, self._new_message = True, False
            if len(self._answer) <= _MAX_REFUSAL_CHARS:
                self._answer += gap + text
            yield TextDelta(gap + text)

    def _parse_delta(self, data: dict[str, Any]) -> Iterator[AgentEvent]:
        op, path, value = data.get("op"), str(data.get("path") or ""), data.get("value")
        if op == "append" and isinstance(value, str):
            yield from self._append(_clean_text(value))
        elif op == "add" and _CALL_PATH.search(path):
            yield from self._parse_call(_dict(_json(value) if isinstance(value, str) else value))
        elif op == "replace" and "/content_parts/" in path and isinstance(value, str):
            self._tool_text = value
            yield from self._parse_tool_result(value)

    def _append(self, text: str) -> Iterator[AgentEvent]:
        if self._role == "tool" and self._awaits_result:
            whole = self._tool_text + text
            if whole.lstrip().startswith("{"):
                self._tool_text = whole
                yield from self._parse_tool_result(whole)
                return
        yield from self._emit_text(text)

    def _parse_call(self, call: dict[str, Any]) -> Iterator[AgentEvent]:
        call_id, func = str(call.get("id") or ""), _dict(call.get("func"))
        if not call_id or call_id in self._calls:
            return
        extra, arguments = _dict(func.get("extra")), func.get("arguments")
        arguments = _dict(_json(arguments) if isinstance(arguments, str) else arguments)
        kind = _kind(extra.get("resource_type")) or ("video" if "video" in str(func.get("name")).lower() else "image")
        self._calls[call_id] = kind
        yield ToolCalled(
            id=call_id,
            kind=kind,
            prompt=clean(str(arguments.get("prompt") or "")),
            ratio=clean(str(arguments.get("ratio") or ""))[:12],
        )
        yield from self._emit_job(call_id, extra)

    def _parse_tool_result(self, text: str) -> Iterator[AgentEvent]:
        result = _json(text)
        if isinstance(result, dict):
            yield from self._emit_job(self._tool_call, result)

    def _emit_job(self, call_id: str, result: dict[str, Any]) -> Iterator[AgentEvent]:
        key = str(result.get("submit_id") or "").lower()
        if not _UUID.fullmatch(key) or key in self._started:
            return
        self._started.add(key)
        self._finished_calls.add(call_id)
        self._awaits_result = False
        kind = _kind(result.get("resource_type")) or self._calls.get(call_id) or "image"
        upstream_id = clean(str(result.get("history_id") or ""))[:64]
        yield JobStarted(tool_call_id=call_id, submit_key=key, upstream_id=upstream_id, kind=kind)


def _kind(value: Any) -> str:
    return value if value in {"image", "video"} else ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        # Only this parser accepts half of an escaped surrogate pair (upstream may cut a character in two).
        return json.loads(text)
    except ValueError:
        return None


def _clean_text(text: str) -> str:
    """Return the text without lone surrogates and NUL, which the database and the stream cannot carry."""
    return text.replace("\x00", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
