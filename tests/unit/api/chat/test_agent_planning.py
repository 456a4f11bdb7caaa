"""The messages of a chat with the agent, as upstream takes them (protocol section 9.1)."""

from typing import Any

import pytest

from api.chat.agent_planning import build_messages
from api.chat.schemas import ChatMessage
from worker.core.errors import DreameryError

PICTURE = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}


def said(role: str, content: Any) -> ChatMessage:
    return ChatMessage(role=role, content=content)


def turns(*messages: tuple[str, Any]) -> list[tuple[str, str]]:
    return [(turn["role"], turn["text"]) for turn in build_messages([said(*message) for message in messages])[0]]


def test_system_texts_go_in_front_of_the_first_user_message():
    found = turns(
        ("system", "Be kind."), ("assistant", "Hi"), ("user", "Draw"), ("developer", "Be short."), ("user", "Again")
    )
    assert found == [("assistant", "Hi"), ("user", "Be kind.\nBe short.\n\nDraw"), ("user", "Again")]


def test_only_text_parts_are_taken_and_the_rest_is_counted():
    parts = [{"type": "text", "text": "a"}, PICTURE, {"type": "input_text", "text": "b"}, "c", {"type": "x"}, 7]
    found, left_out = build_messages([said("user", parts)])
    assert found == [{"role": "user", "text": "a\nb\nc"}]
    assert left_out == 3


def test_empty_messages_are_dropped():
    assert turns(("user", ""), ("assistant", None), ("user", [PICTURE]), ("user", "  "), ("user", "x")) == [
        ("user", "x")
    ]


@pytest.mark.parametrize("messages", [[], [("user", "")], [("user", [PICTURE])], [("system", " ")]])
def test_nothing_left_is_a_hello(messages):
    assert turns(*messages) == [("user", "Hello")]


def test_a_system_text_alone_is_said_by_the_user():
    assert turns(("system", "Draw a boat")) == [("user", "Draw a boat")]


def test_an_assistant_alone_is_answered_with_a_hello():
    assert turns(("assistant", "Hi")) == [("assistant", "Hi"), ("user", "Hello")]


def test_results_of_tools_are_told_as_the_users():
    assert turns(("user", "a"), ("tool", "42")) == [("user", "a"), ("user", "42")]


def test_an_unknown_role_names_its_place():
    with pytest.raises(DreameryError) as caught:
        turns(("user", "a"), ("wizard", "b"))
    assert (caught.value.code, caught.value.param) == ("invalid_value", "messages.1.role")


def test_a_text_that_is_too_long_names_its_place():
    with pytest.raises(DreameryError) as caught:
        turns(("user", "a" * 32_001))
    assert (caught.value.code, caught.value.param) == ("prompt_too_long", "messages.0.content")
