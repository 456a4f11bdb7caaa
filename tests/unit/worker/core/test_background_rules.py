"""The operator's file of background rules: what is read, and how errors name the place."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from worker.core.background_rules import BackgroundRulesError, load, normalized
from worker.core.settings import Settings

RULE = 'id = "a"\nfront_end = "f"\nkind = "title"\nsource = "s"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "rules.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_rules_and_blocks_are_read(tmp_path: Path) -> None:
    text = f"""
[[rule]]
{RULE}system = "Name  THIS"
user_pattern = "chat \\\\d"
max_tokens_up_to = 40
temperature_up_to = 0.5
transcript = true
answer = {{ name = "{{title}}" }}

[[block]]
id = "b"
front_end = "f"
source = "s"
tag = "files"
"""
    rules = load(written(tmp_path, text))
    (rule,), (block,) = rules.rules, rules.blocks
    assert rule.texts == {"system": ("name this",)}
    assert rule.patterns["user"].search("a CHAT 5")
    assert (rule.max_tokens_up_to, rule.temperature_up_to, rule.transcript) == (40, 0.5, True)
    assert (rule.answer, block.tag) == ({"name": "{title}"}, "files")
    assert normalized(" A\n b ") == "a b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[rule", "is not TOML"),
        ("[[rules]]", "rules: is unknown; allowed are [[rule]] and [[block]]"),
        ("rule = 1", "rule: must be a list of tables, each written [[rule]]"),
        ("[[rule]]", "rule number 1, field 'id': must be a string"),
        (f"[[rule]]\n{RULE}", "rule 'a': needs at least one condition on a text"),
        (f"[[rule]]\n{RULE}user = 5", "rule 'a', field 'user': must be a string or a list of strings"),
        (f"[[rule]]\n{RULE}user = []", "rule 'a', field 'user': must be a string or a list of strings"),
        (f"[[rule]]\n{RULE}usr = 'x'", "rule 'a', field 'usr': is unknown; allowed are id, front_end"),
        (f"[[rule]]\n{RULE}user_pattern = '('", "rule 'a', field 'user_pattern': is not a regular expression"),
        (f"[[rule]]\n{RULE}user_pattern = '{'x' * 501}'", "field 'user_pattern': must have at most 500 characters"),
        (f"[[rule]]\n{RULE}user = 'x'\nmax_tokens_up_to = -1", "field 'max_tokens_up_to': must be a number, 0 or more"),
        (f"[[rule]]\n{RULE}user = 'x'\ntemperature_up_to = 'a'", "field 'temperature_up_to': must be a number"),
        (f"[[rule]]\n{RULE}user = 'x'\njson = 1", "field 'json': must be true or false; got 1"),
        (f"[[rule]]\n{RULE.replace('title', 'poem')}user = 'x'", "field 'kind': 'poem' is unknown; allowed are title"),
        (f"[[rule]]\n{RULE}user = 'x'\n[[rule]]\n{RULE}user = 'x'", "rule 'a': the id is used twice"),
        ("[[block]]\nid = 'b'", "block 'b': needs either 'tag' or 'start'"),
        ("[[block]]\nid = 'b'\ntag = '<a>'", "block 'b', field 'tag': must be the name of a tag without brackets"),
        ("[[block]]\nid = 'b'\nstart = 'a'", "block 'b': has 'start' and also needs 'end' or 'kept_after'"),
    ],
)
def test_error_names_the_file_the_entry_and_the_field(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BackgroundRulesError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_invalid_file_stops_the_process_at_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMERY_BACKGROUND_RULES_FILE", str(tmp_path / "none.toml"))
    with pytest.raises(ValidationError, match="cannot be read"):
        Settings()
    monkeypatch.setenv("DREAMERY_BACKGROUND_RULES_FILE", "")
    assert Settings().background_rules_file is None
