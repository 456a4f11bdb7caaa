"""The evidence for a change of an earlier picture, and what is no evidence."""

import time

import pytest

from api.chat.follow_ups.classifier import classify


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("the second picture please", "the message names an earlier picture"),
        ("make it blue", "the message refers back to an earlier picture"),
        ("remove the boat", "the message asks for an operation on a picture"),
        ("a bit darker", "the message compares with an earlier picture"),
        ("without the boat", "the message says what to keep or leave out"),
        ("at night", "the message gives only another setting, style or detail"),
        ("too dark", "the message comments on an earlier picture"),
        ("try again", "the message asks for another version"),
        ("draw a cat", "the message asks for a picture of its own"),
        ("a cat", "the message introduces a subject of its own"),
        ("something else: cats", "the message asks for a new picture"),
        ("wolf howling", "nothing in the message refers to an earlier picture"),
    ],
)
def test_reason_names_the_strongest_evidence(text: str, reason: str) -> None:
    verdict = classify(text, ["a boat on a lake"])
    assert verdict.reason == reason
    assert verdict.is_edit == (verdict.score > 0)


def test_noun_of_the_earlier_prompt_makes_a_change() -> None:
    for text, earlier, other in (
        ("公主变成天鹅", "一位公主在湖边", "湖上的小船"),
        ("the lion looks at us", "a lion at a waterhole", "a boat"),
        ("船换一下", "湖上的小船", "一只猫"),
    ):
        assert classify(text, [earlier]).score > classify(text, [other]).score
    assert classify("公主变成天鹅", ["一位公主在湖边"]).is_edit
    assert not classify("公主变成天鹅", ["湖上的小船"]).is_edit


def test_quoted_text_is_no_request() -> None:
    assert not classify('logo for a cafe called "make it darker"', ["a boat"]).is_edit
    assert not classify("咖啡馆招牌，上面写着“背景换成雪山”", ["湖上的小船"]).is_edit


def test_whole_description_is_a_new_picture() -> None:
    scene = (
        "A young woman holding her hat in the wind, the sky behind her is dark and full of birds, the same red coat as "
        "in old paintings, cinematic lighting, 85mm lens, highly detailed, 8k"
    )
    assert not classify(scene, ["a boat on a lake"]).is_edit


def test_traditional_characters_are_read_like_simplified_ones() -> None:
    for text in ("請把背景換成海邊", "變成藍色", "第二張亮一點", "去掉小船"):
        assert classify(text, ["湖上的小船"]).is_edit


@pytest.mark.parametrize(
    "piece", ["a ", "把", "make the ", " ", "a bit ", "了点", "なを", "un peu ", "더 ", "الا ", "旁边"]
)
def test_hostile_message_is_classified_quickly(piece: str) -> None:
    classify("a", [])  # the phrases are loaded once
    started = time.monotonic()
    classify(piece * 1000, [piece * 1000] * 12)
    assert time.monotonic() - started < 2
