"""Answers of background calls."""

import json
from typing import Any

import pytest

from api.chat.background.answers import Words, answer_of_schema, fill_answer, make_answer, make_title

WORDS = Words("draw a **red boat** -ra 16:9", "now at night")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("x" * 500, "X" + "x" * 47),
        ("画" * 100, "画" * 24),
        ("![image](http://a/b) [[seconds:3]] -re 2k", "New chat"),
        ("one two three four five six seven", "One two three four five six"),
        ('"Quoted."', "Quoted"),
        ("", "New chat"),
    ],
)
def test_titles_are_shortened(text: str, title: str) -> None:
    assert make_title(text) == title


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("title", "Draw a red boat"),
        ("tags", "Pictures"),
        ("follow_ups", ""),
        ("queries", "now at night"),
        ("summary", "The user asked for images. The newest request: now at night"),
        ("language", "unknown"),
        ("prompt", "now at night"),
    ],
)
def test_each_kind_has_its_answer(kind: str, answer: str) -> None:
    assert make_answer(kind, WORDS, "an instruction") == answer


def test_list_that_is_wanted_as_json_is_json() -> None:
    assert make_answer("follow_ups", WORDS, "Answer with a JSON array.") == "[]"
    assert make_answer("tags", WORDS, "Ein JSON-Array, bitte.") == '["Pictures"]'
    assert make_answer("memory", WORDS, "One fact per line.") == ""


@pytest.mark.parametrize("kind", ["translation", "merge", "classification", "task"])
def test_what_needs_a_language_model_is_declined(kind: str) -> None:
    assert "Nothing was generated" in make_answer(kind, WORDS, "")
    assert "X-Dreamery-Job" in make_answer(kind, WORDS, "")


def test_answer_of_a_rule_is_filled() -> None:
    assert fill_answer("{title}: {newest}", WORDS) == "Draw a red boat: now at night"
    template: Any = {"name": "{title}", "list": ["{newest}", 1], "empty": []}
    assert json.loads(fill_answer(template, WORDS)) == {
        "name": "Draw a red boat", "list": ["now at night", 1], "empty": [],
    }  # fmt: skip


def test_schema_without_end_is_cut() -> None:
    schema: dict[str, Any] = {"type": "object"}
    schema["properties"] = {"inner": schema}
    assert answer_of_schema(schema, WORDS).endswith("null" + "}" * 9)
