"""Chinese errors are whole Chinese sentences: every message of the API has a translation, with its details."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, Field, ValidationError

from tests.support.platform import ROOT
from worker.core.errors import ERRORS
from worker.core.messages.chinese import chinese_message, read_entries, split_template, translate
from worker.providers.dreamina.error_codes import message_for

CHINESE = re.compile(r"[\u4e00-\u9fff]")
# Texts that only operators see, in a shell; and texts that are put together elsewhere from parts listed there.
# Texts of these parts are not responses of the API.
NO_RESPONSES = ("api/cli/", "worker/sandbox/", "worker/local/")
NAMES = [str(path.relative_to(ROOT)) for folder in ("api", "worker") for path in sorted((ROOT / folder).rglob("*.py"))]
SOURCES = [ROOT / name for name in NAMES if not name.startswith(NO_RESPONSES)]
ERROR_CLASSES = {"DreameryError", "ReferenceNotFetchedError", "SecretLockedError"}
REASON_CLASSES = {"FetchError", "InvalidImageError", "InvalidMediaError"}


def templates_of(node: ast.expr, names: dict[str, list[ast.expr]]) -> Iterator[str]:
    """Yield the texts that an expression can give, with `part` for each variable part."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        parts = [[str(one.value)] if isinstance(one, ast.Constant) else _part(one, names) for one in node.values]
        yield from ("".join(chosen) for chosen in itertools.product(*parts))
    elif isinstance(node, ast.Name):
        for one in names.get(node.id, []):
            yield from templates_of(one, {})
    elif isinstance(node, ast.IfExp):
        yield from templates_of(node.body, names)
        yield from templates_of(node.orelse, names)


def _part(node: ast.expr, names: dict[str, list[ast.expr]]) -> list[str]:
    """Return the texts of a variable part if the function contains them, else one that stands for any text."""
    value = node.value if isinstance(node, ast.FormattedValue) else node
    found = list(templates_of(value, names)) if isinstance(value, ast.Name | ast.IfExp) else []
    return found if len(found) in range(1, 5) else ["<part>"]


def messages_in(path: Path) -> Iterator[str]:
    """Yield the texts of all errors that the file raises."""
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        names: dict[str, list[ast.expr]] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                names.setdefault(node.targets[0].id, []).append(node.value)
        for node in ast.walk(function):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            position = 1 if name == "DreameryError" else 0
            if name in ERROR_CLASSES | REASON_CLASSES and len(node.args) > position:
                yield from templates_of(node.args[position], names)


def is_sentence(template: str) -> bool:
    """Whether the text has words of its own, and is not only put together from other texts."""
    return len(re.findall(r"[A-Za-z]{2,}", template.replace("<part>", ""))) > 1


@pytest.mark.parametrize("path", [str(path.relative_to(ROOT)) for path in SOURCES])
def test_every_error_text_has_a_chinese_translation(path):
    missing = [
        text
        for text in dict.fromkeys(messages_in(ROOT / path))
        if is_sentence(text) and not CHINESE.search(translate(text) or "")
    ]
    assert not missing, "add these to worker/core/messages/chinese.toml"


def test_every_entry_is_complete():
    for english, chinese in read_entries().items():
        count = len(split_template(english)) - 1
        shown = chinese.format(*(f"<{n}>" for n in range(count)))
        dropped = {"or object to extract fields from", "a valid UUID, ", "a valid datetime", "a valid date"}
        assert CHINESE.search(shown) or not is_sentence(english), english
        if not any(text in english for text in dropped):
            assert all(f"<{n}>" in shown for n in range(count)), f"a part is lost: {english}"


@pytest.mark.parametrize(
    ("code", "english", "chinese"),
    [
        (
            "input_unavailable",
            "Reference image 2 could not be fetched: the host name 'a.test' cannot be resolved: no such name in the DNS.",
            "参考图 2无法获取：主机名 'a.test' 无法解析：DNS 中没有这个名称。",
        ),
        ("invalid_value", "`size` must be `WIDTHxHEIGHT`, for example `1280x720`, or `auto`; got '9x'.", "收到 '9x'"),
        (
            "model_not_found",
            "Unknown model 'gpt-9'. `GET /v1/models` lists the available ones, for example jimeng-4.0.",
            "模型 'gpt-9' 不存在",
        ),
        (
            "upstream_risk_control",
            f"{ERRORS['upstream_risk_control'].message} No account can take this job until 2026-11-30 14:05 UTC (in 2 hours).",
            "2 小时后",
        ),
    ],
)
def test_names_and_numbers_stay_in_the_chinese_sentence(code, english, chinese):
    shown = chinese_message(ERRORS[code], english)
    assert chinese in shown
    assert "（Reference" not in shown
    assert not re.search(r"[a-z]{3,} [a-z]{3,} [a-z]{3,}", shown), "an English tail is left"


def test_part_that_looks_like_a_template_does_not_break_the_translation():
    text = "Unknown model 'a {b} {}'. `GET /v1/models` lists the available ones, for example x."
    assert "'a {b} {}'" in (translate(text) or "")


def test_unknown_text_is_kept_behind_the_general_sentence():
    kind = ERRORS["generation_failed"]
    assert chinese_message(kind, "Something upstream said.") == f"{kind.message_zh}（Something upstream said.）"
    assert chinese_message(kind, None) == chinese_message(kind, kind.message) == kind.message_zh


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("content_policy_violation", "The text does not meet our guidelines."),
        ("upstream_error", "server busy (5000)"),
        ("insufficient_quota", "积分不足"),
        ("generation_failed", "a {b} {} c"),
    ],
)
def test_only_the_words_of_upstream_stay_english(code, words):
    kind = ERRORS[code]
    assert chinese_message(kind, message_for(code, words)) == f"{kind.message_zh}（上游：{words}）"
    # What is ours behind the sentence is translated too.
    assert kind.message not in chinese_message(kind, f"{kind.message} Something of ours.")


class _Fields(BaseModel):
    n: int = Field(1, ge=1, le=10)
    text: str = Field("a", min_length=1, max_length=3)
    flag: bool = False
    many: list[str] = Field(default_factory=list, max_length=2)
    more: dict[str, str] = Field(default_factory=dict)
    number: float = 1.0


@pytest.mark.parametrize(
    "fields",
    [{"n": 0}, {"n": 11}, {"n": "x"}, {"n": 1.5}, {"n": []}, {"text": ""}, {"text": "abcd"}, {"text": 5}, {"flag": "x"},
     {"flag": 7}, {"many": "x"}, {"many": ["a"] * 3}, {"more": 1}, {"number": "x"}, {"number": []}],
)  # fmt: skip
def test_common_validation_errors_are_chinese(fields):
    with pytest.raises(ValidationError) as raised:
        _Fields(**fields)
    message = f"Invalid value for {next(iter(fields))!r}: {raised.value.errors()[0]['msg']}."
    shown = translate(message)
    assert shown is not None
    assert not re.search(r"[a-z]{3,} [a-z]{3,}", shown), shown


def test_words_of_upstream_are_not_mixed_into_a_template() -> None:
    # "{} Try again later." fits the whole message, but what stands before it has no translation.
    kind = ERRORS["generation_failed"]
    message = f"{kind.message} Upstream: Generation failed. Try again later."
    assert chinese_message(kind, message) == f"{kind.message_zh}（上游：Generation failed.请稍后再试。）"
