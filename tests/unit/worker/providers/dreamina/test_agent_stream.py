"""The agent (protocol section 9): the request body and every form of the stream, in any split."""

import itertools
import json
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.recorded_upstream import FIXTURES, SESSION, ScriptedUpstream, load_fixture, make_account
from worker.core.concurrency import event_loop
from worker.core.errors import DreameryError
from worker.providers.base import NotSentError
from worker.providers.conversation import (
    AgentEvent,
    Conversation,
    ConversationMessage,
    JobStarted,
    KeepAlive,
    StreamEnded,
    TextDelta,
    ToolCalled,
)
from worker.providers.dreamina.agent_stream import AgentStreamParser
from worker.providers.dreamina.http import MAX_BODY

A, B, V = (f"{digit * 8}-{digit * 4}-4{digit * 3}-8{digit * 3}-{digit * 12}" for digit in "132")
ID = "44444444-4444-4444-8444-444444444444"
HUSKY = Conversation((ConversationMessage("user", "draw two huskies, 16:9"),))
OPENED = [TextDelta("I will draw "), TextDelta("them now.")]


def call(number: int, kind: str = "image") -> ToolCalled:
    return ToolCalled(f"call_synthetic_{number}", kind, "a husky", "16:9")


def job(number: int, key: str, record: str, kind: str = "image") -> JobStarted:
    return JobStarted(f"call_synthetic_{number}", key, record, kind)


TWO = [
    *OPENED, call(1), call(2), job(1, A, "9000000000001"), job(2, B, "9000000000003"), TextDelta("\n\nDone."), StreamEnded(True),
]  # fmt: skip
TEXT = [
    TextDelta("Why did "),
    TextDelta("the boat "),
    TextDelta("float? "),
    TextDelta("It had a light heart."),
    StreamEnded(True),
]
STREAMS: dict[str, list[AgentEvent]] = {
    "agent.text.sse": TEXT,
    "agent.one_image.sse": [*OPENED, call(1), job(1, A, "9000000000001"), TextDelta("\n\nDone."), StreamEnded(True)],
    "agent.two_images.sse": TWO,
    "agent.two_images.replace.sse": TWO,
    "agent.video.sse": [
        *OPENED, call(1, "video"), job(1, V, "9000000000002", "video"), TextDelta("\n\nDone."), StreamEnded(True),
    ],
    "agent.truncated.sse": [TextDelta("I will dr"), StreamEnded(False)],
    "agent.complete_event_variant.sse": [StreamEnded(True)],
}  # fmt: skip


def parse(chunks: list[bytes]) -> list[AgentEvent | str]:
    """Return the events of these chunks; a refusal as its code."""
    parser, events = AgentStreamParser(make_account()), list[AgentEvent | str]()
    try:
        for chunk in chunks:
            events += parser.feed(chunk)
        events += parser.close()
    except DreameryError as error:
        events.append(error.code)
    return events


def split_at(raw: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(raw) + 1) for place in places}), len(raw)]
    return [raw[start:end] for start, end in itertools.pairwise(edges)]


def stream(*events: tuple[str, Any]) -> bytes:
    return "".join(f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n" for name, data in events).encode()


def delta(op: str, value: Any, path: str = "/message/content/content_parts/0/text") -> tuple[str, Any]:
    return "delta", {"path": path, "op": op, "value": value}


def message(role: str, text: str = "", status: str = "in_progress", number: str = "m1", **more: Any) -> tuple[str, Any]:
    content = {"content_parts": [{"text": text}]}
    return "message", {"id": number, "author": {"role": role}, "content": content, "status": status, **more}


def tool_call(number: int, **func: Any) -> tuple[str, Any]:
    value = {"id": f"c{number}", "type": "function", "func": {"name": "text2image", "arguments": "{}", **func}}
    return delta("add", json.dumps(value), f"/message/tool_calls/{number}")


DONE = ("system", {"type": "stream_complete"})
MANY = stream(
    message("assistant"),
    delta("append", "你好，小船 🛶 — "),
    delta("append", "naïve…"),
    tool_call(1),
    message("tool", status="in_progress", number="t", metadata={"tool_call_id": "c1"}),
    delta("replace", json.dumps({"submit_id": A, "history_id": "1", "resource_type": "video"})),
    message("assistant", "好了 ✅", "finished_successfully", "m2", end_turn=True),
    DONE,
)


@pytest.mark.parametrize("name", STREAMS)
def test_each_recorded_stream_is_parsed(name):
    assert parse([(FIXTURES / name).read_bytes()]) == STREAMS[name]


@pytest.mark.parametrize("name", [*STREAMS, "agent.rejected.sse"])
def test_stream_split_into_single_bytes(name):
    raw = (FIXTURES / name).read_bytes()
    assert parse([raw[n : n + 1] for n in range(len(raw))]) == parse([raw])


@given(places=st.lists(st.integers(0, 10_000), max_size=40), ends=st.sampled_from([b"\n", b"\r\n"]))
@settings(max_examples=200, deadline=None)
def test_any_split_gives_the_same_events(places, ends):
    for raw in (MANY, *((FIXTURES / name).read_bytes() for name in STREAMS)):
        sent = raw.replace(b"\n", ends)
        assert parse(split_at(sent, places)) == parse([raw])


def test_multibyte_characters_stay_intact():
    emitted = "".join(event.text for event in parse([MANY]) if isinstance(event, TextDelta))
    assert emitted == "你好，小船 🛶 — naïve…\n\n好了 ✅"
    assert JobStarted("c1", A, "1", "video") in parse([MANY])


@given(raw=st.binary(max_size=300), places=st.lists(st.integers(0, 10_000), max_size=10))
@settings(max_examples=200, deadline=None)
def test_invalid_data_is_ignored(raw, places):
    noise = b"data: " + raw.replace(b"\n", b" ") + b"\n\n"
    text = (FIXTURES / "agent.text.sse").read_bytes()
    assert parse(split_at(noise + text, places)) == TEXT


@pytest.mark.parametrize(
    "strange",
    [
        ("delta", {"op": "append", "value": 7}),
        ("delta", {"op": "add", "path": "/message/tool_calls/0", "value": "no json"}),
        ("delta", {"op": "add", "path": "/message/tool_calls/0", "value": "[1]"}),
        ("delta", {"op": "replace", "path": "/status", "value": "done"}),
        ("delta", [1]),
        ("system", {"type": "title"}),
        ("message", {"author": 3, "content": {"content_parts": "x"}}),
        ("message", {"author": {"role": "user"}, "content": {"content_parts": [{"text": "an echo"}]}}),
        ("title_generation", {"title": "x"}),
        ("message", {"event_data": {"submit_info": {"code": 0}}}),
    ],
)
def test_unknown_events_are_ignored(strange):
    assert parse([stream(strange) + (FIXTURES / "agent.text.sse").read_bytes()]) == TEXT


def test_repeated_call_or_job_counts_once():
    result = json.dumps({"submit_id": A, "history_id": "1", "resource_type": "image"})
    tool = message("tool", result, "finished_successfully", "t", metadata={"tool_call_id": "c1"})
    events = parse([stream(tool_call(1), tool_call(1), tool, tool, delta("replace", result), DONE)])
    assert events == [ToolCalled("c1", "image"), JobStarted("c1", A, "1", "image"), StreamEnded(True)]


def test_tool_call_may_contain_its_job():
    events = parse([stream(tool_call(1, extra={"resource_type": "video", "submit_id": A}), DONE)])
    assert events == [ToolCalled("c1", "video"), JobStarted("c1", A, "", "video"), StreamEnded(True)]


def test_leaked_tool_json_is_not_emitted():
    leak = json.dumps({"submit_id": A, "history_id": "1"})
    events = parse([stream(message("assistant"), delta("append", "Look: "), delta("append", leak), DONE)])
    assert events == [TextDelta("Look: "), StreamEnded(True)]


def test_tool_result_in_chunks_is_joined():
    result = json.dumps({"submit_id": A, "history_id": "1", "resource_type": "image"})
    tool = message("tool", "", number="t", metadata={"tool_call_id": "c1"})
    deltas = [delta("append", result[:20]), delta("append", result[20:])]
    events = parse([stream(tool_call(1), tool, *deltas, delta("append", "There."), DONE)])
    assert events == [
        ToolCalled("c1", "image"),
        JobStarted("c1", A, "1", "image"),
        TextDelta("There."),
        StreamEnded(True),
    ]


def test_finished_message_does_not_repeat_its_text():
    events = parse(
        [
            stream(
                message("assistant"),
                delta("append", "One, "),
                delta("append", "two"),
                message("assistant", "One, two, three.", "finished_successfully", end_turn=True),
            )
        ]
    )
    assert events == [TextDelta("One, "), TextDelta("two"), TextDelta(", three."), StreamEnded(True)]


def test_end_of_turn_waits_for_jobs_of_its_calls():
    end = message("assistant", "Done.", "finished_successfully", end_turn=True)
    result = json.dumps({"submit_id": A, "history_id": "1", "resource_type": "image"})
    tool = message("tool", result, "finished_successfully", "t", metadata={"tool_call_id": "c1"})
    events = parse([stream(tool_call(1), end, tool, ("delta", {"op": "append", "value": "never read"}))])
    assert events == [
        ToolCalled("c1", "image"),
        TextDelta("Done."),
        JobStarted("c1", A, "1", "image"),
        StreamEnded(True),
    ]


def test_invalid_submit_id_starts_no_job():
    tool = message("tool", '{"submit_id": "x"}', "finished_successfully", "t", metadata={"tool_call_id": "c1"})
    assert parse([stream(tool_call(1), tool, DONE)]) == [ToolCalled("c1", "image"), StreamEnded(True)]


def test_lone_surrogates_are_replaced():
    raw = b'event: delta\ndata: {"op":"append","value":"a\\ud83d\\u0000b"}\n\n'
    assert parse([raw, stream(DONE)]) == [TextDelta("a\ufffdb"), StreamEnded(True)]


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (("message", {"event_data": {"submit_info": {"code": 1017, "msg": "CheckPermission"}}}), "upstream_permission_denied"),
        (("message", {"event_data": {"submit_info": {"code": "1006"}}}), "insufficient_quota"),
        (("stream_complete", {"success": False, "error_code": 2038}), "content_policy_violation"),
        (("error", {"ret": "1015", "errmsg": "login error", "data": None}), "upstream_session_expired"),
        (("message", {"event_data": {"submit_info": {"code": 987654}}}), "upstream_error"),
    ],
)  # fmt: skip
def test_refusal_inside_the_stream_raises(event, code):
    assert parse([stream(message("assistant"), delta("append", "Hm. "), event)]) == [TextDelta("Hm. "), code]


# --- the call ---


async def later(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """The chunks as the body of a response on the event loop."""
    for chunk in chunks:
        yield chunk


def converse(answer: Any, region: str = "us", order: Conversation = HUSKY) -> tuple[ScriptedUpstream, list[AgentEvent]]:
    script = ScriptedUpstream(answer)
    events = list(event_loop.iterate(script.provider.converse(make_account(region), order, conversation_id=ID)))
    return script, [event for event in events if not isinstance(event, KeepAlive)]


def sse(raw: bytes) -> httpx.Response:
    return httpx.Response(200, content=raw, headers={"content-type": "text/event-stream"})


def test_request_equals_the_fixture():
    script, events = converse(sse((FIXTURES / "agent.text.sse").read_bytes()))
    expected, sent = load_fixture("agent.request.json"), script.last_request
    assert (sent.method, sent.url.path) == (expected["method"], expected["path"])
    query = dict(parse_qsl(sent.url.query.decode()))
    query["web_id"] = expected["query"]["web_id"]
    assert query == expected["query"]
    assert {name: sent.headers[name] for name in expected["headers"]} == expected["headers"]
    assert "accept" in sent.headers
    assert sent.headers.get_list("accept") == ["text/event-stream"]
    body = json.loads(sent.content)
    for ours, recorded in zip(body["messages"], expected["body"]["messages"], strict=True):
        assert len(ours["id"]) == 36
        ours["id"], ours["create_time"] = recorded["id"], recorded["create_time"]
    assert body == expected["body"]
    assert events == TEXT


def test_messages_keep_order_and_roles():
    turns = (ConversationMessage("user", "a"), ConversationMessage("assistant", "b"), ConversationMessage("user", "c"))
    script, _ = converse(sse(stream(DONE)), order=Conversation(turns))
    messages = json.loads(script.last_request.content)["messages"]
    assert [(m["author"]["role"], m["content"]["content_parts"][0]["text"]) for m in messages] == [
        ("user", "a"), ("assistant", "b"), ("user", "c"),
    ]  # fmt: skip
    assert len({m["id"] for m in messages}) == 3


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", ""])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_refusal_instead_of_stream_raises_for_any_content_type(kind, step):
    raw = (FIXTURES / "agent.error_json_body.txt").read_bytes()
    chunks = (raw[n : n + step] for n in range(0, len(raw), step))
    with pytest.raises(DreameryError) as caught:
        converse(httpx.Response(200, content=later(chunks), headers={"content-type": kind}))
    assert caught.value.code == "upstream_session_expired"
    assert "20231114000000EXAMPLELOGID" in caught.value.detail
    assert SESSION not in f"{caught.value!r} {caught.value.detail}"


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, content=b"", headers={"content-type": "text/event-stream"}),
        httpx.Response(502, content=b"<html>", headers={"content-type": "text/html"}),
        httpx.Response(500, content=b'{"message":"internal error"}'),
        httpx.Response(200, content=b"\n <html>", headers={"content-type": "text/event-stream"}),
        httpx.Response(200, content=b'{"ret":"0","data":{}}'),
    ],
)
def test_response_without_stream_and_reason_is_unclear(answer):
    with pytest.raises(DreameryError) as caught:
        converse(answer)
    assert caught.value.code == "upstream_unreachable"
    assert not isinstance(caught.value, NotSentError)


def test_unreachable_upstream_raises_not_sent():
    def down(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(NotSentError):
        converse(down)


def test_text_before_a_broken_connection_is_emitted():
    def broken():
        yield stream(message("assistant"), delta("append", "I will"))
        raise httpx.ReadError("reset")

    script = ScriptedUpstream(
        httpx.Response(200, content=later(broken()), headers={"content-type": "text/event-stream"})
    )
    events = event_loop.iterate(script.provider.converse(make_account("us"), HUSKY, conversation_id=ID))
    assert next(events) == TextDelta("I will")
    with pytest.raises(DreameryError, match="upstream_unreachable"):
        list(events)


def test_agent_without_end_is_cut_at_the_size_limit():
    chunk, sent = stream(message("assistant"), delta("append", "x" * 1_000_000)), 0

    def endless():
        nonlocal sent
        # Ends at twice the limit, so that a missing limit fails the test instead of filling the memory.
        while sent < 2 * MAX_BODY:
            sent += len(chunk)
            yield chunk

    with pytest.raises(DreameryError, match="upstream_unreachable") as caught:
        converse(httpx.Response(200, content=later(endless()), headers={"content-type": "text/event-stream"}))
    assert f"longer than {MAX_BODY} bytes" in caught.value.detail
    assert not isinstance(caught.value, NotSentError), "jobs that it started may have been charged"
    assert MAX_BODY < sent <= MAX_BODY + 2 * len(chunk)


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("Not enough credits are left — 积分不足。", True),
        ("抱歉，您的积分余额不足，无法生成图片。", True),
        ("You have run out of credits.", True),
        ("Here is your boat.", False),
        ("Roll the credits!", False),
        ("A story about a bank. " * 30 + "It had not enough credits.", False),
    ],
)
def test_answer_about_missing_credits_is_recognised(text: str, lacks: bool) -> None:
    pieces = [delta("append", piece) for piece in re.findall(r"\S+\s*", text)]
    assert parse([stream(*pieces, DONE)])[-1] == StreamEnded(True, lacks_credits=lacks)


def test_answer_with_a_job_lacks_no_credits() -> None:
    assert parse([stream(delta("append", "Not enough credits for more."), tool_call(1), DONE)])[-1] == StreamEnded(True)
