"""Matrices of prompts, models, ratios and sizes."""

import pytest
from pydantic import ValidationError

from api.generation.variants.request_matrix import IMAGES, VIDEOS, RequestMatrix, expand_matrix
from worker.core.catalog.models import get_catalog
from worker.core.errors import DreameryError


def _expand(most: int = 100, **fields):
    return expand_matrix(RequestMatrix(**fields), most=most)


def test_every_combination_is_one_request_in_the_order_of_reading():
    image, video = get_catalog().default_image_model, get_catalog().default_video_model

    requests = _expand(
        prompts=["a {red|blue} boat", "a car"],
        variants=True,
        models=[image, video],
        ratios=["1:1", "16:9"],
        n=1,
        body={"metadata": {"scene": "one"}},
    )

    assert len(requests) == 3 * 2 * 2
    assert [(one.prompt, one.body["prompt"]) for one in requests[::4]] == [
        (0, "a red boat"),
        (0, "a blue boat"),
        (1, "a car"),
    ]
    assert [(one.endpoint, one.body["model"], one.body["ratio"]) for one in requests[:4]] == [
        (IMAGES, image, "1:1"),
        (IMAGES, image, "16:9"),
        (VIDEOS, video, "1:1"),
        (VIDEOS, video, "16:9"),
    ]
    assert all(one.body["n"] == 1 and one.body["metadata"] == {"scene": "one"} for one in requests)


def test_prompts_are_plain_text_unless_variants_are_wanted():
    assert [one.body for one in _expand(prompts=["a {red|blue} boat"])] == [{"prompt": "a {red|blue} boat"}]


def test_sizes_and_resolutions():
    assert [one.body["size"] for one in _expand(prompts=["a"], sizes=["1024x1024", "16:9"])] == ["1024x1024", "16:9"]
    both = _expand(prompts=["a"], ratios=["1:1"], resolutions=["2k", "4k"])
    assert [(one.body["ratio"], one.body["resolution"]) for one in both] == [("1:1", "2k"), ("1:1", "4k")]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"prompts": ["a", "b {c"], "variants": True}, "prompts.1", "character 3 is not closed"),
        ({"prompts": ["a", "{|b}"], "variants": True}, "prompts.1", "is empty"),
        ({"prompts": ["{a|b}" * 60], "variants": True}, "prompts", "more than 1000000000 requests"),
        ({"prompts": ["a"] * 6, "ratios": ["1:1"] * 20}, "prompts", "make 120 requests; the maximum is 100"),
        ({"prompts": ["a"], "sizes": ["1:1"], "ratios": ["1:1"]}, "sizes", "exclude each other"),
        ({"prompts": ["a"], "body": {"model": "x"}}, "body", "`model`"),
    ],
)
def test_what_cannot_be_expanded_is_refused_with_its_place(fields, param, words):
    with pytest.raises(DreameryError, match=words) as raised:
        _expand(**fields)
    assert (raised.value.code, raised.value.param) == ("invalid_value", param)


def test_a_prompt_that_is_too_long_is_not_expanded():
    with pytest.raises(DreameryError, match="maximum is 32000") as raised:
        _expand(prompts=["short", "{a|b}" + "a" * 32_000], variants=True)
    assert (raised.value.code, raised.value.param) == ("prompt_too_long", "prompts.1")


def test_long_variants_are_bounded_together():
    with pytest.raises(DreameryError, match="too long together"):
        _expand(10_000, prompts=["{a|b}" * 10 + "a" * 30_000], variants=True)


def test_unknown_fields_of_a_matrix_are_refused():
    with pytest.raises(ValidationError):
        RequestMatrix(prompts=["a"], model="one")
