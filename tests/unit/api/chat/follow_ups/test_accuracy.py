"""Accuracy of the decision between a change of an earlier picture and a new one, as published in docs/clients.md.

`follow_ups.jsonl` has one message per line with the prompt of the earlier pictures. The messages of the set `tuned`
were used to write the rules. Those of the set `held_out` were written afterwards.
"""

import json
import re
from functools import cache
from typing import Any

import pytest

from api.chat.follow_ups.classifier import classify
from api.chat.follow_ups.decision import decide_follow_up
from api.chat.schemas import ChatMessage
from tests.support.platform import ROOT

ROWS: list[dict[str, Any]] = [
    json.loads(line)
    for line in (ROOT / "tests/fixtures/clients/follow_ups.jsonl").read_text(encoding="utf-8").splitlines()
]
LANGUAGES = {"ar", "de", "en", "es", "fr", "it", "ja", "ko", "pt", "ru", "zh"}
ANSWER = "".join(f"![image](http://h/v1/files/file_{n}/content)\n" for n in "abcd")
_TABLE = re.compile(r"<!-- follow-ups: accuracy -->\n(.*?)<!-- end -->", re.DOTALL)
_ROW = re.compile(r"\| (\w+) \| (\w+) \| (\d+) \| (\d+) \|")


@cache
def _is_right(number: int) -> bool:
    row = ROWS[number]
    return classify(row["text"], [row["earlier"]]).is_edit == (row["decision"] == "edit")


def _counts() -> dict[tuple[str, str], tuple[int, int]]:
    """Return the number of messages and of right decisions by set and decision."""
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for number, row in enumerate(ROWS):
        key = (row["set"], row["decision"])
        total, right = counts.get(key, (0, 0))
        counts[key] = (total + 1, right + _is_right(number))
    return counts


def test_published_accuracy_is_reached() -> None:
    [table] = _TABLE.findall((ROOT / "docs/clients.md").read_text(encoding="utf-8"))
    published = {(one, two): (int(total), int(right)) for one, two, total, right in _ROW.findall(table)}
    measured = _counts()
    assert set(published) == set(measured)
    assert {key: total for key, (total, _) in published.items()} == {key: total for key, (total, _) in measured.items()}
    worse = {key: measured[key][1] for key, (_, right) in published.items() if measured[key][1] < right}
    assert worse == {}, "accuracy dropped below the table of docs/clients.md"


def test_at_least_a_hundred_messages_of_each_kind_in_every_language() -> None:
    counts = _counts()
    for decision in ("edit", "new"):
        assert sum(total for (_, one), (total, _) in counts.items() if one == decision) >= 100
        assert {row["language"] for row in ROWS if row["decision"] == decision} == LANGUAGES
        assert counts["held_out", decision][0] >= 30


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_every_language_is_understood(language: str) -> None:
    right = [_is_right(number) for number, row in enumerate(ROWS) if row["language"] == language]
    assert sum(right) / len(right) >= 0.95


def test_the_picture_that_a_message_names_is_chosen() -> None:
    rows = [row for row in ROWS if "image" in row]
    assert len(rows) >= 20
    for row in rows:
        before = [ChatMessage(role="user", content=row["earlier"]), ChatMessage(role="assistant", content=ANSWER)]
        follow_up = decide_follow_up(before, row["text"], has_pictures=False, choice=None)
        assert follow_up is not None
        assert (row["text"], follow_up.numbers) == (row["text"], (row["image"],))


def test_prompts_that_refer_to_nothing_are_new_pictures() -> None:
    """The prompts of `picture_prompts.jsonl` were written for another measurement."""
    lines = (ROOT / "tests/fixtures/clients/picture_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [
        body["messages"][0]["content"]
        for body in (json.loads(line)["body"] for line in lines)
        if len(body["messages"]) == 1 and isinstance(body["messages"][0]["content"], str)
    ]
    assert len(texts) >= 150
    changes = [text for text in texts if classify(text, ["a violin on a red chair"]).is_edit]
    # Some of these prompts ask to change an attached picture.
    assert len(changes) <= len(texts) * 0.03, changes
