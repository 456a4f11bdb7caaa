"""Flags in prompts: which words are flags, which stay text, and that no other text is lost."""

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.catalog.prompts.prompt_flags import parse_flags, requested_series_count
from worker.core.errors import DreameryError


@pytest.mark.parametrize(
    ("prompt", "rest", "values"),
    [
        ("少女祈祷中... -re 4k -ra 16:9", "少女祈祷中...", {"resolution": "4k", "ratio": "16:9"}),
        ("a boat -RE 2K on a lake", "a boat on a lake", {"resolution": "2k"}),
        ("-Ra 16：9 a boat", "a boat", {"ratio": "16:9"}),
        ("a boat -ra:16:9", "a boat", {"ratio": "16:9"}),
        ("跑起来-d 5秒，快", "跑起来，快", {"duration": "5"}),
        ("跑起来 -d 10s", "跑起来", {"duration": "10"}),
        ("一只猫，比例 16：9，夜", "一只猫，，夜", {"ratio": "16:9"}),
        ("一只猫 比例：４:３", "一只猫", {"ratio": "4:3"}),
        ("a boat -re 1.5k. At night", "a boat. At night", {"resolution": "1.5k"}),
        ("a boat -ra", "a boat", {"ratio": ""}),
        ("a boat -ra 16:9 -ra 16:9", "a boat", {"ratio": "16:9"}),
        ("a 2k picture, 16:9", "a 2k picture, 16:9", {}),
        ("pre-re 4k well-d 5 x --re 4k", "pre-re 4k well-d 5 x --re 4k", {}),
        ("-real -rate -dx", "-real -rate -dx", {}),
        ("黄金比例，很美", "黄金比例，很美", {}),
        ("a  b\n c", "a  b\n c", {}),
        ("boat [[seconds:3 -re 4k]]", "boat [[seconds:3 -re 4k]]", {}),
        ("boat [[fail:2038]] -re 4k", "boat [[fail:2038]]", {"resolution": "4k"}),
        (
            "rock 'n' roll in the '90s -re 4k, it's 'loud'",
            "rock 'n' roll in the '90s, it's 'loud'",
            {"resolution": "4k"},
        ),
        ("don't stop -ra 16:9, it's 5\" wide", "don't stop, it's 5\" wide", {"ratio": "16:9"}),
        ('"unclosed -ra 16:9', '"unclosed', {"ratio": "16:9"}),
    ],
)
def test_flags_are_parsed_and_removed(prompt, rest, values):
    flags = parse_flags(prompt)
    assert (flags.prompt, flags.values) == (rest, values)


@pytest.mark.parametrize(
    "quoted",
    [
        '"比例 16:9"',
        "“比例 16:9”",
        "「比例 16:9」",
        "『-ra 16:9』",
        "'-ra 16:9'",
        "«-d 5»",
        "„-re 4k“",
        "‘use -re 4k now’",
        "`-ra 1:1`",
    ],
)
def test_flags_in_a_text_to_be_drawn_are_kept(quoted):
    flags = parse_flags(f"海报，写着{quoted}，夜 -re 2k")
    assert (flags.prompt, flags.values) == (f"海报，写着{quoted}，夜", {"resolution": "2k"})


@pytest.mark.parametrize(
    "prompt", ['"a' * 16_000, "'a " * 10_000, "“" * 32_000, '"x" -d 5 ' * 3_000, "「" * 9 + "-d 5"]
)
def test_many_quotation_marks_are_read_quickly(prompt):
    started = time.process_time()
    parse_flags(prompt)
    assert time.process_time() - started < 2.0


@pytest.mark.parametrize("prompt", ["-re 4k", "a -re 2k -re 4k", "a 比例 1:1 -ra 4:3", "比例 " * 9 + "1:1 " * 9])
def test_contradicting_flags_or_empty_prompts_are_refused(prompt):
    with pytest.raises(DreameryError) as caught:
        parse_flags(prompt)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "prompt")


def test_invalid_flag_value_error_lists_allowed_values():
    flags = parse_flags("a boat -re 9k -d 5")
    with pytest.raises(DreameryError, match="must be one of 1k, 2k; got '9k'"):
        flags.choose("resolution", ["1k", "2k"])
    with pytest.raises(DreameryError, match="no length"):
        flags.reject("duration", "an image has no length.")
    assert flags.choose("ratio", ["1:1"]) is None
    with pytest.raises(DreameryError, match="it has no value"):
        parse_flags("a -re").choose("resolution", ["1k"])


_WORDS = st.lists(
    st.sampled_from(
        ["-re", "-RA", "-d", "4k", "16:9", "16：9", "比例", "比例：", ":", "-", "re", "ra", "[[", "]]", "[[x -re 2k]]", "猫",
         "boat", " ", "\n", ".", "5", "秒", "１", "=", "－", '"', "'", "“", "”"]
    ),
    max_size=14,
).map("".join)  # fmt: skip


@given(st.one_of(_WORDS, st.text(max_size=60)))
def test_parsing_again_finds_no_more_flags(prompt):
    try:
        flags = parse_flags(prompt)
    except DreameryError:
        return
    second = parse_flags(flags.prompt)
    assert (second.prompt, second.values) == (flags.prompt, {})
    if not flags.values:
        assert flags.prompt == prompt


@given(
    st.lists(st.from_regex(r"[a-zA-Z0-9]{1,8}", fullmatch=True), min_size=1, max_size=8),
    st.sampled_from(["-re 4k", "-ra 16:9", "-D 5", "比例 16：9", "-Re：2k"]),
    st.integers(0, 8),
)
def test_other_words_keep_their_order(words, flag, position):
    position = min(position, len(words))
    assert parse_flags(" ".join([*words[:position], flag, *words[position:]])).prompt == " ".join(words)


@pytest.mark.parametrize(
    "piece", ["-re ", " ", "[[", "比例 ", "-ra:", "比例 1", "-d 5 ", "1:1 比例", "-re 4k猫 ", "-re" + " " * 99]
)
def test_hostile_prompts_are_parsed_quickly(piece):
    prompt = "a" + piece * (32_000 // len(piece))
    started = time.monotonic()
    with contextlib.suppress(DreameryError):
        parse_flags(prompt)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("prompt", "number"),
    [
        ("连续故事，生成6张，小船的一天", 6),
        ("6 张海报", 6),
        ("一个绘本", 4),
        ("连续", 4),
        ("故事 0张", 4),
        ("画1张", 1),
        ("99999张", 15),
        ("a story in six pictures", None),
        ("一张纸", None),
    ],
)
def test_requested_series_count(prompt, number):
    assert requested_series_count(prompt) == number
