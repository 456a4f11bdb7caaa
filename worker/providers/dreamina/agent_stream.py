"""The agent (protocol section 9): the body of a conversation, and the reader of the event stream that answers it.

The reader is pure: bytes in any split go in, events come out. No complete recorded stream exists, so it takes whatever
forms were seen anywhere and ignores what it does not know.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import orjson

from worker.core.errors import DreameryError
from worker.providers.base import Account, AgentEvent, Conversation, Ended, JobStarted, Said, ToolCalled
from worker.providers.dreamina.error_codes import clean, fault_for, message_for
from worker.providers.dreamina.http import refusal

_VERSION = "3.0.0"
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_CALL_PATH = re.compile(r"/message/tool_calls/\d+$")
# The agent sometimes lets the JSON between it and its tools slip into its answer.
_LEAKED = ("submit_id", "history_id")
_LONGEST_LINE = 4_000_000


def conversation_body(order: Conversation, conversation_id: str, now_ms: int) -> bytes:
    """The body of section 9.1."""
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


class AgentReader:
    """Turns the bytes of one stream into events. `feed` what comes, `close` when nothing does or it is `over`."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._left = b""
        self._name, self._data = "", list[str]()
        self._marked = False  # an end mark was seen
        self.over = False
        self._role, self._message_id, self._message_text = "", "", ""
        self._spoke, self._new_message = False, False
        self._tool_call, self._tool_text, self._tool_waits = "", "", False
        self._calls: dict[str, str] = {}  # tool call id -> kind
        self._answered: set[str] = set()
        self._started: set[str] = set()

    def feed(self, piece: bytes) -> Iterator[AgentEvent]:
        """The events that this piece completes. Raises what upstream refuses the conversation with."""
        # Split at line ends first: a line is whole UTF-8 whatever the pieces were.
        *lines, self._left = (self._left + piece).split(b"\n")
        if len(self._left) > _LONGEST_LINE:
            raise DreameryError("upstream_unreachable", detail="a line of the event stream has no end")
        for line in lines:
            if self.over:
                return
            yield from self._line(line.removesuffix(b"\r"))

    def close(self) -> Iterator[AgentEvent]:
        """What the end of the stream completes, and `Ended`."""
        if not self.over:
            # The connection may close right behind the last line, without the empty one after it.
            yield from self._line(self._left.removesuffix(b"\r"))
            yield from self._line(b"")
        yield Ended(complete=self._marked)

    def _line(self, line: bytes) -> Iterator[AgentEvent]:
        if not line:
            name, data = self._name, "\n".join(self._data)
            self._name, self._data = "", []
            if data:
                yield from self._event(name, _json(data))
            return
        field, _, value = line.decode("utf-8", "replace").lstrip("\ufeff").partition(":")
        if field == "event":
            self._name = value.strip()
        elif field == "data":
            self._data.append(value.removeprefix(" "))

    def _event(self, name: str, data: Any) -> Iterator[AgentEvent]:
        if not isinstance(data, dict):
            return
        self._refuse(data)
        if name == "delta":
            yield from self._delta(data)
        elif name == "stream_complete" or data.get("type") == "stream_complete":
            self._complete(data)
        elif name in {"message", ""}:
            inner = data.get("message")
            yield from self._message(inner if "author" not in data and isinstance(inner, dict) else data)
        # The answer is over, but the job of a call may still be named behind it.
        if self._marked and set(self._calls) <= self._answered:
            self.over = True

    def _refuse(self, data: dict[str, Any]) -> None:
        """Section 9.2, `message` refused; and the envelope of section 3.1 inside the stream."""
        ret = data.get("ret")
        if isinstance(ret, str | int) and str(ret) not in {"", "0"}:
            raise refusal(str(ret), data, self._account)
        told = _dict(_dict(data.get("event_data")).get("submit_info"))
        self._fault(told.get("code"), str(told.get("msg") or ""))

    def _complete(self, data: dict[str, Any]) -> None:
        self._fault(data.get("error_code"), str(data.get("error_msg") or data.get("msg") or ""))
        self._marked = self.over = True

    def _fault(self, number: Any, words: str) -> None:
        if not isinstance(number, str | int) or str(number) in {"", "0"}:
            return
        code = fault_for(str(number), "", "", words)
        secret = self._account.session
        detail = clean(f"agent code={number} msg={words}", secret=secret)
        raise DreameryError(code, message_for(code, words, secret=secret), detail=detail)

    def _message(self, data: dict[str, Any]) -> Iterator[AgentEvent]:
        metadata = _dict(data.get("metadata"))
        parts = _dict(data.get("content")).get("content_parts")
        texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        text = "".join(_text(piece) for piece in texts if isinstance(piece, str))
        self._role = str(_dict(data.get("author")).get("role") or "assistant")
        if self._role == "tool":
            self._tool_call, self._tool_text = str(metadata.get("tool_call_id") or ""), text
            self._tool_waits = True
            yield from self._result(text)
        elif self._role == "assistant":
            yield from self._opened(str(data.get("id") or ""), text)
        status = data.get("status")
        if status == "finished_successfully" and data.get("end_turn") is True:
            self._marked = True

    def _opened(self, message_id: str, text: str) -> Iterator[AgentEvent]:
        known = self._message_text if message_id and message_id == self._message_id else ""
        if known and text.startswith(known):
            # The whole message once more, now that it is finished: only what is new has not been said.
            text = text[len(known) :]
            self._message_text = known
        elif message_id != self._message_id:
            self._message_id, self._message_text = message_id, ""
            self._new_message = self._spoke
        yield from self._say(text)

    def _say(self, text: str) -> Iterator[AgentEvent]:
        if text and not any(word in text for word in _LEAKED):
            self._message_text += text
            # The site shows each message in a bubble of its own.
            gap = "\n\n" if self._new_message and not text.startswith("\n") else ""
            self._spoke, self._new_message = True, False
            yield Said(gap + text)

    def _delta(self, data: dict[str, Any]) -> Iterator[AgentEvent]:
        op, path, value = data.get("op"), str(data.get("path") or ""), data.get("value")
        if op == "append" and isinstance(value, str):
            yield from self._appended(_text(value))
        elif op == "add" and _CALL_PATH.search(path):
            yield from self._call(_dict(_json(value) if isinstance(value, str) else value))
        elif op == "replace" and "/content_parts/" in path and isinstance(value, str):
            self._tool_text = value
            yield from self._result(value)

    def _appended(self, text: str) -> Iterator[AgentEvent]:
        if self._role == "tool" and self._tool_waits:
            whole = self._tool_text + text
            if whole.lstrip().startswith("{"):
                self._tool_text = whole
                yield from self._result(whole)
                return
        yield from self._say(text)

    def _call(self, call: dict[str, Any]) -> Iterator[AgentEvent]:
        call_id, func = str(call.get("id") or ""), _dict(call.get("func"))
        if not call_id or call_id in self._calls:
            return
        extra, wished = _dict(func.get("extra")), func.get("arguments")
        wished = _dict(_json(wished) if isinstance(wished, str) else wished)
        kind = _kind(extra.get("resource_type")) or ("video" if "video" in str(func.get("name")).lower() else "image")
        self._calls[call_id] = kind
        yield ToolCalled(
            id=call_id,
            kind=kind,
            prompt=clean(str(wished.get("prompt") or "")),
            ratio=clean(str(wished.get("ratio") or ""))[:12],
        )
        yield from self._started_by(call_id, extra)

    def _result(self, text: str) -> Iterator[AgentEvent]:
        result = _json(text)
        if isinstance(result, dict):
            yield from self._started_by(self._tool_call, result)

    def _started_by(self, call_id: str, result: dict[str, Any]) -> Iterator[AgentEvent]:
        key = str(result.get("submit_id") or "").lower()
        if not _UUID.fullmatch(key) or key in self._started:
            return
        self._started.add(key)
        self._answered.add(call_id)
        self._tool_waits = False
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
        # Half of an escaped pair (a character cut in two by upstream) is JSON to this reader only.
        return json.loads(text)
    except ValueError:
        return None


def _text(text: str) -> str:
    """Text that a database and a stream can carry: no halves of characters, no NUL."""
    return text.replace("\x00", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
