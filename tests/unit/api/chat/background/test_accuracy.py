"""How many recorded background calls and prompts are recognised, compared with what docs/clients.md publishes.

`train` are cases that the rules were written for. `holdout` are cases that were written afterwards and not used to
change them, so their accuracy is what users can expect.
"""

import json
import re
from collections import Counter
from functools import lru_cache
from typing import Any

import pytest

from api.chat.background.detection import find_background_call
from api.chat.schemas import ChatRequest
from tests.support.platform import ROOT

FIXTURES = ROOT / "tests" / "fixtures" / "clients"
CALLS, PROMPTS = "background_calls", "picture_prompts"
SETS = ("train", "holdout")


@lru_cache(maxsize=2)
def cases(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FIXTURES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def is_background(body: dict[str, Any]) -> bool:
    request = ChatRequest.model_validate(body)
    return find_background_call(request, agent=False, makes="images", choice=None, enabled=True) is not None


def measured(name: str, part: str) -> tuple[int, int, list[str]]:
    """The right answers, all cases, and the ids of wrong ones."""
    chosen = [case for case in cases(name) if case["set"] == part]
    wrong = [case["id"] for case in chosen if is_background(case["body"]) != (name == CALLS)]
    return len(chosen) - len(wrong), len(chosen), wrong


def published() -> dict[tuple[str, str], tuple[int, int]]:
    """The numbers of the table in docs/clients.md, by file and set: right and all."""
    text = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    table = re.search(r"<!-- background-accuracy -->(.*?)<!-- /background-accuracy -->", text, re.DOTALL)
    assert table is not None
    names = {"background calls": CALLS, "prompts": PROMPTS}
    found = {}
    for line in table[1].strip().splitlines()[2:]:
        label, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        for part, cell in zip(SETS, cells, strict=True):
            right, total = re.search(r"(\d+) of (\d+)", cell).groups()  # type: ignore[union-attr]
            found[names[label], part] = (int(right), int(total))
    return found


@pytest.mark.parametrize("name", [CALLS, PROMPTS])
@pytest.mark.parametrize("part", SETS)
def test_accuracy_is_not_below_the_published_one(name: str, part: str) -> None:
    right, total, wrong = measured(name, part)
    published_right, published_total = published()[name, part]
    assert total == published_total
    assert right >= published_right, wrong


def test_measurement_covers_front_ends_kinds_and_languages() -> None:
    calls, prompts = cases(CALLS), cases(PROMPTS)
    assert len(calls) >= 150
    assert len(prompts) >= 150
    assert sum(case["set"] == "holdout" for case in calls) >= 40
    assert sum(case["set"] == "holdout" for case in prompts) >= 40
    assert len({case["language"] for case in calls}) >= 20
    assert len({case["language"] for case in prompts}) >= 10
    kinds = Counter(case["kind"] for case in calls)
    wanted = (
        "title",
        "tags",
        "follow_ups",
        "queries",
        "summary",
        "emoji",
        "autocomplete",
        "memory",
        "translation",
        "merge",
    )
    assert not [kind for kind in wanted if not kinds[kind]]
    paraphrased = {case["language"] for case in calls if case["source"] in {"paraphrase", "hold-out"}}
    assert len(paraphrased) >= 10


def test_published_table_is_read() -> None:
    assert set(published()) == {(name, part) for name in (CALLS, PROMPTS) for part in SETS}
