"""Which earlier pictures a chat message changes: chosen by the message, by an attachment, or by the caller."""

from typing import Any

import pytest

from api.chat.follow_ups.decision import EditChoice, FollowUp, decide_follow_up, describe_follow_up, parse_edit_choice
from api.chat.prompt_extraction import extract_prompt
from api.chat.schemas import ChatRequest
from worker.core.errors import DreameryError

LINK = "https://example.org/a.png"
ANSWER = "".join(f"![image](http://h/v1/files/file_{n}/content)\n" for n in "abcd")
DATA = "data:image/png;base64," + "iVBORw0KGgo" * 20


def url(letter: str) -> str:
    return f"http://h/v1/files/file_{letter}/content"


def chat(*messages: tuple[str, Any], **fields: Any) -> ChatRequest:
    parsed = [{"role": role, **(text if isinstance(text, dict) else {"content": text})} for role, text in messages]
    return ChatRequest.model_validate({"messages": parsed, **fields})


def follow_up(*messages: tuple[str, Any], choice: EditChoice | None = None) -> FollowUp | None:
    return extract_prompt(chat(*messages), choice).follow_up


def after_boat(text: str, choice: EditChoice | None = None) -> FollowUp:
    found = follow_up(("user", "a boat"), ("assistant", ANSWER), ("user", text), choice=choice)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("make it blue", "a"),
        ("Please now change the sky", "a"),
        ("great, but remove the dog", "a"),
        ("turn the second picture into a sketch", "b"),
        ("the same picture at night", "a"),
        ("animate it", "a"),
        ("把天空改成红色", "a"),
        ("第三张，去掉文字", "c"),
        ("让它动起来", "a"),
        ("this image #4, brighter", "d"),
        ("the last one in black and white", "d"),
        ("最后一张换成夜晚", "d"),
        ("make the second boat red", "a"),
        ("merge pictures 1 and 3", "ac"),
        ("第一张和第三张合成一张", "ac"),
        ("a bit darker", "a"),
        ("without the boat", "a"),
        ("背景换成雪山", "a"),
        ("变成蓝色", "a"),
    ],
)
def test_change_uses_the_earlier_picture_that_it_names(text: str, letters: str) -> None:
    found = after_boat(text)
    assert found.links == tuple(map(url, letters))
    assert found.place == "the last answer"


@pytest.mark.parametrize(
    "text", ["a cat", "make a robot", "一只猫", "将军骑马", "把手特写", "Crop circles in a wheat field", "wolf howling"]
)
def test_new_picture_uses_no_earlier_picture(text: str) -> None:
    found = after_boat(text)
    assert (found.is_edit, found.links, found.numbers) == (False, (), ())


def test_decision_is_given_in_words() -> None:
    assert after_boat("the second one, darker").note() == (
        f"Changing picture 2 of the last answer (the message names an earlier picture): {url('b')}"
    )
    assert after_boat("make it blue").as_params() == {
        "decision": "edit",
        "image": 1,
        "of": "the last answer",
        "reason": "the message refers back to an earlier picture",
    }
    new = after_boat("a cat")
    assert new.as_params()["decision"] == "new"
    assert new.note() == "A new picture (the message introduces a subject of its own)"
    assert describe_follow_up(after_boat("merge pictures 1 and 3").as_params()).startswith(
        "Changing pictures 1 and 3 of the last answer ("
    )


def test_data_url_is_not_shown() -> None:
    found = follow_up(("user", [{"type": "image_url", "image_url": DATA}, "a boat"]), ("user", "make it blue"))
    assert found is not None
    assert (found.links, found.place) == ((DATA,), "your earlier message")
    assert found.note().endswith(": data:image/png;base64,...")


def test_newest_message_with_pictures_is_meant() -> None:
    newer = "![image](https://h/new.png)"
    found = follow_up(
        ("user", "a"), ("assistant", ANSWER), ("user", "b"), ("assistant", newer), ("user", "make it blue")
    )
    assert found is not None
    assert found.links == ("https://h/new.png",)
    found = follow_up(("assistant", newer), ("assistant", "It failed."), ("user", "make it blue"))
    assert found is not None
    assert found.place == "an earlier answer"


def test_number_beyond_the_newest_message_counts_in_the_whole_chat() -> None:
    one, two = "![image](https://h/1.png)", "![image](https://h/2.png)"
    messages = [("user", "a"), ("assistant", one), ("user", "b"), ("assistant", two)]
    found = follow_up(*messages, ("user", "make picture 2 blue"))
    assert found is not None
    assert (found.links, found.place) == (("https://h/2.png",), "this chat")
    with pytest.raises(DreameryError, match="There is no picture 3") as caught:
        follow_up(*messages, ("user", "make picture 3 blue"))
    assert (caught.value.code, caught.value.param) == ("invalid_value", "messages")
    # "The third one" may count something in the picture.
    found = follow_up(*messages, ("user", "make it red, the third one too"))
    assert found is not None
    assert found.links == ("https://h/2.png",)


def test_attachment_and_link_of_the_message_are_its_references() -> None:
    before: list[tuple[str, Any]] = [("user", "a boat"), ("assistant", ANSWER)]
    for last in (
        [{"type": "text", "text": "make it blue"}, {"type": "image_url", "image_url": LINK}],
        f"make it blue ![x]({LINK})",
        f'make it blue <img alt="x" src="{LINK}">',
        f"make it blue {LINK}",
        {"content": "make it blue", "images": [{"type": "image_url", "image_url": {"url": LINK}}]},
    ):
        prompt = extract_prompt(chat(*before, ("user", last)))
        assert prompt.text == "make it blue"
        [image] = prompt.images
        assert image["image_url"] == LINK
        assert prompt.follow_up is not None
        assert (prompt.follow_up.links, prompt.follow_up.place) == ((), "this message")


def test_picture_that_is_sent_before_its_text_belongs_to_it() -> None:
    picture = [{"type": "image_url", "image_url": {"url": LINK}}]
    assert extract_prompt(chat(("user", picture), ("user", "a cat"))).images == [{"image_url": LINK}]
    assert extract_prompt(chat(("user", picture), ("assistant", "ok"), ("user", "a cat"))).images == []


def test_quoted_link_is_text_to_draw() -> None:
    prompt = extract_prompt(chat(("user", f'a poster with the text "{LINK}"')))
    assert (LINK in prompt.text, prompt.images) == (True, [])
    assert extract_prompt(chat(("user", "a poster for https://example.org/shop"))).images == []


def test_unreadable_entry_of_images_is_named() -> None:
    with pytest.raises(DreameryError) as caught:
        extract_prompt(chat(("user", {"content": "a cat", "images": [{"size": 7}]})))
    assert (caught.value.code, caught.value.param) == ("invalid_image", "messages.0.images.0")


def test_caller_decides_instead() -> None:
    assert after_boat("make it blue", choice="none").links == ()
    assert after_boat("a cat", choice="last").links == (url("a"),)
    assert after_boat("a cat, like the second picture", choice="last").links == (url("b"),)
    assert after_boat("a cat", choice=3).links == (url("c"),)
    assert after_boat("a cat", choice=3).reason == "the caller requested it"
    with pytest.raises(DreameryError, match="There is no picture 5") as caught:
        after_boat("a cat", choice=5)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "dreamery_edit")


def test_requested_change_keeps_the_attachment_too() -> None:
    parts = [{"type": "text", "text": "replace the boat"}, {"type": "image_url", "image_url": LINK}]
    prompt = extract_prompt(chat(("user", "a boat"), ("assistant", ANSWER), ("user", parts)), 2)
    assert prompt.images == [parts[1]]
    assert prompt.follow_up is not None
    assert prompt.follow_up.links == (url("b"),)


@pytest.mark.parametrize("choice", ["last", 1, 2])
def test_requested_change_without_an_earlier_picture_is_rejected(choice: EditChoice) -> None:
    with pytest.raises(DreameryError, match="no earlier message has one") as caught:
        follow_up(("user", "a cat"), choice=choice)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "dreamery_edit")


def test_chat_without_earlier_pictures_has_no_follow_up() -> None:
    assert follow_up(("user", "make it blue")) is None
    assert follow_up(("user", "a cat"), choice="none") is None
    assert follow_up(("system", ANSWER), ("user", "make it blue")) is None
    assert decide_follow_up([], "make it blue", has_pictures=True, choice="last") is None


@pytest.mark.parametrize(
    ("header", "field", "choice"),
    [
        (None, None, None),
        (None, True, "last"),
        (None, False, "none"),
        (None, 2, 2),
        (None, "2", 2),
        (None, "last", "last"),
        (None, "none", "none"),
        ("last", None, "last"),
        ("None", None, "none"),
        (" 3 ", None, 3),
        ("true", None, "last"),
        ("last", True, "last"),
        ("2", 2, 2),
    ],
)
def test_choice_of_the_caller_is_read(header: str | None, field: Any, choice: EditChoice | None) -> None:
    assert parse_edit_choice(header, field) == choice


@pytest.mark.parametrize(
    ("header", "field", "param"),
    [
        ("first", None, "X-Dreamery-Edit"),
        ("0", None, "X-Dreamery-Edit"),
        ("", None, "X-Dreamery-Edit"),
        (None, 0, "dreamery_edit"),
        (None, -1, "dreamery_edit"),
        (None, "1.5", "dreamery_edit"),
        (None, "²", "dreamery_edit"),
        ("last", False, "dreamery_edit"),
        ("1", True, "dreamery_edit"),
    ],
)
def test_invalid_or_contradicting_choice_is_rejected(header: str | None, field: Any, param: str) -> None:
    with pytest.raises(DreameryError) as caught:
        parse_edit_choice(header, field)
    assert (caught.value.code, caught.value.param) == ("invalid_value", param)


def test_agent_takes_no_choice() -> None:
    assert parse_edit_choice(None, None, agent=True) is None
    with pytest.raises(DreameryError) as caught:
        parse_edit_choice("last", None, agent=True)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "dreamery_edit")
