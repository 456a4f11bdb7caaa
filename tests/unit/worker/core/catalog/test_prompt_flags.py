"""Flags in prompts: what is one, what stays prose, and that nothing else is lost."""

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.catalog.prompt_flags import read_flags, series_asked
from worker.core.errors import DreameryError


@pytest.mark.parametrize(
    ("prompt", "rest", "found"),
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
    ],
)
def test_flags_are_found_and_taken_out(prompt, rest, found):
    flags = read_flags(prompt)
    assert (flags.prompt, flags.found) == (rest, found)


@pytest.mark.parametrize("prompt", ["-re 4k", "a -re 2k -re 4k", "a 比例 1:1 -ra 4:3", "比例 " * 9 + "1:1 " * 9])
def test_what_contradicts_itself_or_leaves_nothing(prompt):
    with pytest.raises(DreameryError) as caught:
        read_flags(prompt)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "prompt")


def test_a_bad_value_names_the_allowed_ones():
    flags = read_flags("a boat -re 9k -d 5")
    with pytest.raises(DreameryError, match="must be one of 1k, 2k; got '9k'"):
        flags.choose("resolution", ["1k", "2k"])
    with pytest.raises(DreameryError, match="no length"):
        flags.refuse("duration", "a picture has no length.")
    assert flags.choose("ratio", ["1:1"]) is None
    with pytest.raises(DreameryError, match="it has no value"):
        read_flags("a -re").choose("resolution", ["1k"])


_WORDS = st.lists(
    st.sampled_from(
        ["-re", "-RA", "-d", "4k", "16:9", "16：9", "比例", "比例：", ":", "-", "re", "ra", "[[", "]]", "[[x -re 2k]]", "猫",
         "boat", " ", "\n", ".", "5", "秒", "１", "=", "－"]
    ),
    max_size=14,
).map("".join)  # fmt: skip


@given(st.one_of(_WORDS, st.text(max_size=60)))
def test_reading_twice_finds_nothing_more(prompt):
    try:
        flags = read_flags(prompt)
    except DreameryError:
        return
    again = read_flags(flags.prompt)
    assert (again.prompt, again.found) == (flags.prompt, {})
    if not flags.found:
        assert flags.prompt == prompt


@given(
    st.lists(st.from_regex(r"[a-zA-Z0-9]{1,8}", fullmatch=True), min_size=1, max_size=8),
    st.sampled_from(["-re 4k", "-ra 16:9", "-D 5", "比例 16：9", "-Re：2k"]),
    st.integers(0, 8),
)
def test_other_words_stay_in_their_order(words, flag, place):
    place = min(place, len(words))
    assert read_flags(" ".join([*words[:place], flag, *words[place:]])).prompt == " ".join(words)


@pytest.mark.parametrize(
    "piece", ["-re ", " ", "[[", "比例 ", "-ra:", "比例 1", "-d 5 ", "1:1 比例", "-re 4k猫 ", "-re" + " " * 99]
)
def test_hostile_prompts_are_quick(piece):
    prompt = "a" + piece * (32_000 // len(piece))
    started = time.monotonic()
    with contextlib.suppress(DreameryError):
        read_flags(prompt)
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
def test_which_prompts_ask_for_a_series(prompt, number):
    assert series_asked(prompt) == number
