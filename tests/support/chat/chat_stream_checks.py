"""Checks the bytes of a chat stream: order of frames, and what OpenAI clients do not accept."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

_LINK = re.compile(r"!\[image\]\((\S+)\)\n")


@dataclass
class ParsedStream:
    """The parsed content of a stream."""

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
        """The complete text."""
        return "".join(self.contents)

    @property
    def links(self) -> list[str]:
        """Links of the images in the text."""
        return _LINK.findall(self.content)


def check_stream(raw: bytes) -> ParsedStream:
    """Parse a complete stream and assert that its format is valid."""
    assert raw.endswith(b"data: [DONE]\n\n"), raw[-200:]
    assert b"\r" not in raw
    assert raw.count(b"[DONE]") == 1
    stream, ids = ParsedStream(), set()
    lines = raw.decode().split("\n")[:-1]
    for index, line in enumerate(lines):
        if line.startswith(":"):
            stream.heartbeats += 1
            # A blank line after a comment would be an empty event.
            assert lines[index + 1] != "", lines[index - 2 : index + 3]
        elif line == "":
            assert lines[index - 1].startswith("data: "), "a blank line without data before it"
        else:
            assert line.startswith("data: "), f"a line that some clients reject: {line!r}"
            assert line != "data: "
            assert lines[index + 1] == "", "a frame is one line"
            _parse_frame(line.removeprefix("data: "), stream, ids)
    assert len(ids) <= 1, "all chunks have the same id, time and model"
    assert stream.order[0] == "role"
    assert stream.order[-1] == "done"
    assert stream.order.count("role") == 1
    if stream.error is None:
        ends = ["finish", "usage", "done"] if stream.usage else ["finish", "done"]
        assert stream.order[-len(ends) :] == ends
        assert stream.order.count("finish") == 1
    else:
        assert stream.order[-2:] == ["error", "done"]
        assert stream.finish is None
    return stream


def _parse_frame(data: str, stream: ParsedStream, ids: set[tuple[str, int, str]]) -> None:
    if data == "[DONE]":
        stream.order.append("done")
        return
    chunk = json.loads(data)
    if "error" in chunk:
        assert set(chunk) == {"error"}
        assert set(chunk["error"]) == {"message", "type", "param", "code"}
        stream.error = chunk["error"]
        stream.order.append("error")
        return
    assert chunk["object"] == "chat.completion.chunk"
    assert isinstance(chunk["created"], int)
    ids.add((chunk["id"], chunk["created"], chunk["model"]))
    assert chunk["id"].startswith("chatcmpl-")
    stream.model = chunk["model"]
    if not chunk["choices"]:
        stream.usage = chunk["usage"]
        assert set(stream.usage) == {"prompt_tokens", "completion_tokens", "total_tokens"}
        stream.order.append("usage")
        return
    assert "usage" not in chunk
    [choice] = chunk["choices"]
    assert set(choice) == {"index", "delta", "finish_reason"}
    assert choice["index"] == 0
    stream.order.append(_parse_delta(choice["delta"], choice["finish_reason"], stream))


def _parse_delta(delta: dict[str, Any], finish: str | None, stream: ParsedStream) -> str:
    if finish is not None:
        assert delta == {}
        stream.finish = finish
        return "finish"
    if "role" in delta:
        assert delta == {"role": "assistant", "content": ""}
        return "role"
    [(name, text)] = delta.items()
    assert text, "an empty delta closes the think block of some clients"
    if name == "reasoning_content":
        assert text.endswith("\n")
        stream.lines.append(text[:-1])
        return "line"
    assert name == "content"
    stream.contents.append(text)
    return "content"
