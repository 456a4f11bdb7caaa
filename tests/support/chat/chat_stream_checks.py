"""One judge for the bytes of every chat stream: the order and the forbidden things of openai-compat sections 1 and 3."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

_LINK = re.compile(r"!\[image\]\((\S+)\)\n")


@dataclass
class Told:
    """What a stream said."""

    model: str = ""
    lines: list[str] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    finish: str | None = None
    usage: dict[str, int] | None = None
    error: dict[str, Any] | None = None
    heartbeats: int = 0
    order: list[str] = field(default_factory=list)

    @property
    def content(self) -> str:
        """The whole answer."""
        return "".join(self.contents)

    @property
    def links(self) -> list[str]:
        """The pictures of the answer."""
        return _LINK.findall(self.content)


def check_stream(raw: bytes) -> Told:
    """Judge a stream that has ended."""
    assert raw.endswith(b"data: [DONE]\n\n"), raw[-200:]
    assert b"\r" not in raw
    assert raw.count(b"[DONE]") == 1
    told, ids = Told(), set()
    lines = raw.decode().split("\n")[:-1]
    for place, line in enumerate(lines):
        if line.startswith(":"):
            told.heartbeats += 1
            # A blank line behind a comment would be an empty event.
            assert lines[place + 1] != "", lines[place - 2 : place + 3]
        elif line == "":
            assert lines[place - 1].startswith("data: "), "a blank line without data before it"
        else:
            assert line.startswith("data: "), f"a line that some client chokes on: {line!r}"
            assert line != "data: "
            assert lines[place + 1] == "", "a frame is one line"
            _take(line.removeprefix("data: "), told, ids)
    assert len(ids) <= 1, "one id, time and model for all chunks"
    assert told.order[0] == "role"
    assert told.order[-1] == "done"
    assert told.order.count("role") == 1
    if told.error is None:
        ends = ["finish", "usage", "done"] if told.usage else ["finish", "done"]
        assert told.order[-len(ends) :] == ends
        assert told.order.count("finish") == 1
    else:
        assert told.order[-2:] == ["error", "done"]
        assert told.finish is None
    return told


def _take(data: str, told: Told, ids: set[tuple[str, int, str]]) -> None:
    if data == "[DONE]":
        told.order.append("done")
        return
    chunk = json.loads(data)
    if "error" in chunk:
        assert set(chunk) == {"error"}
        assert set(chunk["error"]) == {"message", "type", "param", "code"}
        told.error = chunk["error"]
        told.order.append("error")
        return
    assert chunk["object"] == "chat.completion.chunk"
    assert isinstance(chunk["created"], int)
    ids.add((chunk["id"], chunk["created"], chunk["model"]))
    assert chunk["id"].startswith("chatcmpl-")
    told.model = chunk["model"]
    if not chunk["choices"]:
        told.usage = chunk["usage"]
        assert set(told.usage) == {"prompt_tokens", "completion_tokens", "total_tokens"}
        told.order.append("usage")
        return
    assert "usage" not in chunk
    [choice] = chunk["choices"]
    assert set(choice) == {"index", "delta", "finish_reason"}
    assert choice["index"] == 0
    told.order.append(_delta(choice["delta"], choice["finish_reason"], told))


def _delta(delta: dict[str, Any], finish: str | None, told: Told) -> str:
    if finish is not None:
        assert delta == {}
        told.finish = finish
        return "finish"
    if "role" in delta:
        assert delta == {"role": "assistant", "content": ""}
        return "role"
    [(name, text)] = delta.items()
    assert text, "an empty delta closes some client's think block"
    if name == "reasoning_content":
        assert text.endswith("\n")
        told.lines.append(text[:-1])
        return "line"
    assert name == "content"
    told.contents.append(text)
    return "content"
