r"""Prompts with variants: `{a|b}`, within each other, with escapes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.generation.variants.prompt_variants import PromptSyntaxError, PromptVariants, split_prompts

# A tree: a text, or a list of parts, each of which is a text or a tuple of two or more alternatives.
_TEXT = st.text("ab {}|\\\n猫", max_size=6)
_TREES = st.recursive(
    _TEXT.map(lambda text: [text]),
    lambda inner: st.lists(
        st.one_of(_TEXT, st.lists(inner, min_size=2, max_size=3).map(tuple)), min_size=1, max_size=3
    ),
    max_leaves=8,
)


def _escape(text: str) -> str:
    for char in "\\{}|":
        text = text.replace(char, f"\\{char}")
    return text


def _write(tree) -> str:
    """Return the notation of a tree."""
    return "".join(
        _escape(part) if isinstance(part, str) else "{" + "|".join(_write(one) for one in part) + "}" for part in tree
    )


def _expected(tree) -> list[str]:
    """Return what a tree stands for, in the order of reading: the last choice changes fastest."""
    texts = [""]
    for part in tree:
        options = [part] if isinstance(part, str) else [text for one in part for text in _expected(one)]
        texts = [before + option for before in texts for option in options]
    return texts


@given(_TREES)
def test_variants_have_the_order_of_reading_and_their_exact_count(tree):
    variants = PromptVariants(_write(tree))

    assert list(variants) == _expected(tree)
    assert variants.count == len(_expected(tree))


@given(st.text("ab猫 .,()[]\n/", max_size=40))
def test_text_without_braces_stays_as_it_is(text):
    assert list(PromptVariants(text)) == [text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a {red|blue} boat", ["a red boat", "a blue boat"]),
        ("{a|b}{1|2}", ["a1", "a2", "b1", "b2"]),
        ("a {{dark |}red|blue} boat", ["a dark red boat", "a red boat", "a blue boat"]),
        (r"a \{red\|blue\} boat", ["a {red|blue} boat"]),
        (r"C:\pictures \\ {a|\|}", ["C:\\pictures \\ a", "C:\\pictures \\ |"]),
        ('{"style": "flat"} | {x {a|b}}', ['{"style": "flat"} | {x a}', '{"style": "flat"} | {x b}']),
        ("{|big }boat", ["boat", "big boat"]),
        ("ends with \\", ["ends with \\"]),
        ("", [""]),
    ],
)
def test_notation(text, expected):
    assert list(PromptVariants(text)) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a {red|blue boat", "character 3 is not closed"),
        ("a {red|{blue} boat", "character 3 is not closed"),
        ("a red} boat", "character 6 closes nothing"),
        ("{" * 11 + "a|b" + "}" * 11, "more than 10 levels"),
    ],
)
def test_braces_that_do_not_fit_are_named_by_their_place(text, problem):
    with pytest.raises(PromptSyntaxError, match=problem):
        PromptVariants(text)


def test_the_count_of_very_many_variants_is_known_without_building_them():
    assert PromptVariants("{a|b}" * 4000).count == 2**4000


def test_lines_are_prompts():
    assert split_prompts(" a boat \n\n\t\r\na {red|blue} car\n") == ["a boat", "a {red|blue} car"]
