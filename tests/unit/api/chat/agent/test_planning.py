"""Messages of a chat with the agent in upstream's form (protocol section 9.1)."""

from typing import Any

import pytest

from api.chat.agent.planning import build_messages
from api.chat.schemas import ChatMessage
from worker.core.errors import DreameryError

PICTURE = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}


def message(role: str, content: Any) -> ChatMessage:
    return ChatMessage(role=role, content=content)


def build(*messages: tuple[str, Any]) -> list[tuple[str, str]]:
    return [(sent["role"], sent["text"]) for sent in build_messages([message(*one) for one in messages])[0]]


def test_system_texts_precede_first_user_message():
    found = build(
        ("system", "Be kind."), ("assistant", "Hi"), ("user", "Draw"), ("developer", "Be short."), ("user", "Again")
    )
    assert found == [("assistant", "Hi"), ("user", "Be kind.\nBe short.\n\nDraw"), ("user", "Again")]


def test_non_text_parts_are_omitted_and_counted():
    parts = [{"type": "text", "text": "a"}, PICTURE, {"type": "input_text", "text": "b"}, "c", {"type": "x"}, 7]
    found, omitted = build_messages([message("user", parts)])
    assert found == [{"role": "user", "text": "a\nb\nc"}]
    assert omitted == 3


def test_empty_messages_are_dropped():
    assert build(("user", ""), ("assistant", None), ("user", [PICTURE]), ("user", "  "), ("user", "x")) == [
        ("user", "x")
    ]


@pytest.mark.parametrize("messages", [[], [("user", "")], [("user", [PICTURE])], [("system", " ")]])
def test_empty_conversation_sends_hello(messages):
    assert build(*messages) == [("user", "Hello")]


def test_system_text_alone_becomes_user_message():
    assert build(("system", "Draw a boat")) == [("user", "Draw a boat")]


def test_assistant_message_alone_is_followed_by_hello():
    assert build(("assistant", "Hi")) == [("assistant", "Hi"), ("user", "Hello")]


def test_tool_results_become_user_messages():
    assert build(("user", "a"), ("tool", "42")) == [("user", "a"), ("user", "42")]


def test_unknown_role_error_names_the_message():
    with pytest.raises(DreameryError) as caught:
        build(("user", "a"), ("wizard", "b"))
    assert (caught.value.code, caught.value.param) == ("invalid_value", "messages.1.role")


def test_too_long_text_error_names_the_message():
    with pytest.raises(DreameryError) as caught:
        build(("user", "a" * 32_001))
    assert (caught.value.code, caught.value.param) == ("prompt_too_long", "messages.0.content")
