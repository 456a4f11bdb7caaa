"""Pictures in the messages of a chat, in every form in which front ends send them back."""

import time
from typing import Any

import pytest

from api.chat.follow_ups.pictures import find_picture_messages, split_text
from api.chat.schemas import ChatMessage

LINK = "https://example.org/a.png"
OWN = "http://127.0.0.1:8000/v1/files/file_01a2/content"
BASE64 = "iVBORw0KGgo" * 20
DATA = f"data:image/png;base64,{BASE64}"


def links(content: Any, role: str = "assistant", **fields: Any) -> list[str]:
    found = find_picture_messages([ChatMessage.model_validate({"role": role, "content": content, **fields})])
    return [link for message in found for link in message.links]


@pytest.mark.parametrize("role", ["user", "assistant", "tool"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f"![a boat]({LINK})", [LINK]),
        (f'![a [red] boat](<{LINK}> "title")', [LINK]),
        (f"[![x]({LINK})](https://example.org/page)", [LINK]),
        ("![x](https://example.org/File_(1).png)", ["https://example.org/File_(1).png"]),
        (f"![x]({DATA})", [DATA]),
        (f'<img src="{LINK}?a=1&amp;b=2" width=10>', [f"{LINK}?a=1&b=2"]),
        (f"<img alt='x' src='{DATA}'/>", [DATA]),
        (f"<IMG SRC={LINK}>", [LINK]),
        (f"Here it is: {LINK}.", [LINK]),
        (f"Here it is: {OWN}?sig=1", [f"{OWN}?sig=1"]),
        (f"[open]({OWN})", [OWN]),
        (f"a {DATA} b", [DATA]),
        (f"![image]({OWN})\n![image]({LINK})\n", [OWN, LINK]),
        ([{"type": "image_url", "image_url": {"url": LINK}}], [LINK]),
        ([{"type": "input_image", "image_url": DATA}], [DATA]),
        ([{"type": "text", "text": f"![x]({LINK})"}], [LINK]),
        ([{"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": BASE64}}],
         [DATA]),
        ("no picture, https://example.org/page", []),
        (f'\n<video controls src="{OWN}">\n{OWN}\n</video>\n\n[video.mp4]({OWN})\n', []),
        ([{"type": "video_url", "video_url": {"url": LINK}}], []),
        (None, []),
    ],
)  # fmt: skip
def test_picture_is_found_in_every_form(content: Any, expected: list[str], role: str) -> None:
    assert links(content, role) == expected


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ([{"type": "image_url", "image_url": {"url": LINK}}], [LINK]),
        ([LINK, DATA], [LINK, DATA]),
        ([{"url": LINK}, {"b64_json": BASE64}], [LINK, DATA]),
        ([BASE64], [DATA]),
        ("nothing", []),
        ([7, None, {"size": 1}], []),
    ],
)
def test_field_images_is_read(images: Any, expected: list[str]) -> None:
    assert links("text", images=images) == expected


@pytest.mark.parametrize("name", ["image_url", "input_image", "file_paths", "reference_images"])
def test_media_field_of_a_user_message_is_read(name: str) -> None:
    assert links("a boat", "user", **{name: [LINK]}) == [LINK]


def test_same_picture_counts_once() -> None:
    images = [{"type": "image_url", "image_url": {"url": LINK}}]
    assert links(f"![image]({LINK})\n", images=images) == [LINK]


def test_system_messages_have_no_pictures() -> None:
    assert links(f"![x]({LINK})", "system") == []


@pytest.mark.parametrize(
    "text",
    [
        "![" * 50_000,
        "<img " * 50_000,
        "![a](" * 50_000,
        "<img src='" * 20_000,
        "http://a(" * 30_000,
        '"' * 100_000,
        '<img a="' * 20_000,
        "![" + "[a]" * 30_000,
        "<video src=" * 20_000,
    ],
)
def test_hostile_text_is_read_in_linear_time(text: str) -> None:
    started = time.monotonic()
    split_text(text)
    assert time.monotonic() - started < 5
