"""Model names with suffixes, and the prompt and images of a chat."""

from typing import Any

import pytest

from api.chat.model_names import parse_model_name
from api.chat.prompt_extraction import extract_prompt
from api.chat.schemas import ChatRequest
from worker.core.errors import DreameryError

LINK = "https://example.org/a.png"
KNOWN = {"jimeng-4.0", "video", "org/model:free"}


def chat(*messages: tuple[str, Any]) -> ChatRequest:
    return ChatRequest.model_validate({"messages": [{"role": role, "content": content} for role, content in messages]})


@pytest.mark.parametrize(
    ("written", "name", "options"),
    [
        ("jimeng-4.0", "jimeng-4.0", {}),
        ("jimeng-4.0:2k", "jimeng-4.0", {"resolution": "2k"}),
        ("jimeng-4.0:1.5K", "jimeng-4.0", {"resolution": "1.5k"}),
        ("jimeng-4.0:1024x1024", "jimeng-4.0", {"size": "1024x1024"}),
        ("jimeng-4.0:16:9", "jimeng-4.0", {"ratio": "16:9"}),
        ("jimeng-4.0:16:9:4k", "jimeng-4.0", {"ratio": "16:9", "resolution": "4k"}),
        ("jimeng-4.0：4k：1：1", "jimeng-4.0", {"ratio": "1:1", "resolution": "4k"}),
        ("jimeng-4.0:image", "jimeng-4.0", {}),
        ("video:720p:10s", "video", {"resolution": "720p", "duration": "10"}),
        ("org/model:free", "org/model:free", {}),
        ("org/model:free:2k", "org/model:free", {"resolution": "2k"}),
        ("gpt-9:2k", "gpt-9:2k", {}),
        (":2k", ":2k", {}),
    ],
)
def test_model_name_with_suffixes_is_parsed(written: str, name: str, options: dict[str, str]) -> None:
    found = parse_model_name(written, KNOWN.__contains__)
    assert (found.name, found.options) == (name, options)


@pytest.mark.parametrize("suffix", ["huge", "2k4", "16:9x", "2k:4k", "1k2k", "0x0", "-1"])
def test_unknown_suffix_is_rejected(suffix: str) -> None:
    with pytest.raises(DreameryError, match="Unknown suffix") as caught:
        parse_model_name(f"jimeng-4.0:{suffix}", KNOWN.__contains__)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "model")


def test_last_user_message_is_the_prompt() -> None:
    body = chat(("system", "be kind"), ("user", "a boat"), ("assistant", "x"), ("user", " a car "), ("assistant", "y"))
    assert extract_prompt(body).text == "a car"


def test_text_and_image_parts_are_extracted() -> None:
    parts = [
        {"type": "text", "text": "a boat"},
        {"type": "image_url", "image_url": {"url": LINK, "detail": "high"}},
        "at night",
        {"type": "image_url", "image_url": LINK},
        {"type": "input_image", "image_url": LINK},
        {"type": "input_text", "text": "please"},
        {"type": "text", "text": None},
    ]
    prompt = extract_prompt(chat(("user", parts)))
    assert prompt.text == "a boat\nat night\nplease"
    assert prompt.images == [parts[1], parts[3], parts[4]]


@pytest.mark.parametrize(
    ("messages", "code", "param"),
    [
        ([("system", "a boat")], "missing_required_parameter", "messages"),
        ([("user", " ")], "missing_required_parameter", "messages.0.content"),
        ([("user", None)], "missing_required_parameter", "messages.0.content"),
        ([("user", "a"), ("user", [])], "missing_required_parameter", "messages.1.content"),
        ([("user", [{"type": "image_url", "image_url": LINK}])], "missing_required_parameter", "messages.0.content"),
        ([("user", ["a", {"type": "input_audio"}])], "unsupported_parameter", "messages.0.content.1"),
        ([("user", ["a", {"type": "tool_result", "content": []}])], "unsupported_parameter", "messages.0.content.1"),
        ([("user", ["a", 7])], "unsupported_parameter", "messages.0.content.1"),
    ],
)  # fmt: skip
def test_unusable_messages_are_rejected(messages: list[tuple[str, Any]], code: str, param: str) -> None:
    with pytest.raises(DreameryError) as caught:
        extract_prompt(chat(*messages))
    assert (caught.value.code, caught.value.param) == (code, param)
