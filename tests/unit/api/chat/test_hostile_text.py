"""Texts that repeat what a pattern begins with: every search of a chat takes time in proportion to its length."""

import contextlib
import time

import pytest

from api.chat.background.detection import find_background_call
from api.chat.planning import extract_prompt
from api.chat.schemas import ChatRequest
from worker.core.catalog.prompts.prompt_flags import parse_flags, requested_series_count
from worker.core.errors import DreameryError

UNITS = [
    *("![", "[](", "[", "](", "![a](http://a", "![a](", "![[a]", "[video.a]("),
    *("<img ", "<img src=", '<img "a"', '<img "', "<img a='x'", "src=http://a ", "<video src=", "<a ", "<"),
    *("data:image/png;base64,", "http://a(", "http://", "http://a.png ", '"a" http://a.png '),
    *("`", "```", '"""', '"', "“", "「", "『", "«", "**", "_", "- ", "> "),
    *("<chat_history>", "<chat_history>\n", "User: ", "\nUser: a", '"role":"user",', '"content":"\\', '{"a":', '["a",'),
    *(" -re ", "-ra ", "[[", "[[a", "比例 1", "1张", "第一张", "make it ", "the second one ", "but ", ", ", "\n", " ", "\U0001f6a2"),
]  # fmt: skip
CHARS = 250_000
# A few seconds on a busy machine; a search that begins again at each character takes minutes.
SECONDS = 20


def chat(*messages: tuple[str, str]) -> ChatRequest:
    return ChatRequest.model_validate({"messages": [{"role": role, "content": text} for role, text in messages]})


@pytest.mark.parametrize("unit", UNITS)
def test_search_of_a_hostile_text_is_linear(unit: str) -> None:
    text = (unit * (CHARS // len(unit) + 1))[:CHARS]
    began = time.monotonic()
    for messages in (
        [("user", text)],
        [("user", f"<img {text}")],
        [("system", text), ("user", "a title")],
        [("user", text), ("assistant", f"{text} ![](http://a.example/a.png)"), ("user", "make it darker")],
    ):
        body = chat(*messages)
        find_background_call(body, agent=False, makes="images", choice=None, enabled=True)
        with contextlib.suppress(DreameryError):
            extract_prompt(body)
    with contextlib.suppress(DreameryError):
        parse_flags(text)
    requested_series_count(text)
    assert time.monotonic() - began < SECONDS


def test_message_of_any_length_is_refused_before_it_is_searched() -> None:
    body = chat(("user", '"' * 4_000_000))
    began = time.monotonic()
    with pytest.raises(DreameryError, match="has 4000000 characters") as caught:
        extract_prompt(body)
    assert (caught.value.code, caught.value.param) == ("prompt_too_long", "messages")
    find_background_call(body, agent=False, makes="images", choice=None, enabled=True)
    assert time.monotonic() - began < SECONDS


def test_quoted_links_are_found_among_many_quotations() -> None:
    quoted = '"x" ' * 3000 + '"see https://example.com/a.png here" https://example.com/b.png a boat'
    assert extract_prompt(chat(("user", quoted))).images == [{"image_url": "https://example.com/b.png"}]
