"""What the commands print: errors without HTTP, local times, short ids, and the help in groups."""

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from api.cli.display.added_accounts import print_added
from api.cli.display.error_words import in_command_words
from api.cli.display.help_panels import _PANELS
from api.cli.display.output import print_list, print_with_secret
from api.cli.display.values import describe, local_time, short_id
from api.cli.main import app
from api.cli.models import _makes, _takes
from tests.support.platform import ROOT, clean_env
from worker.core.errors import ERRORS

HTTP = re.compile(r"`?(GET|POST|PUT|PATCH|DELETE) /|Authorization|`Prefer|/docs\b|X-[A-Z]")
ID = f"job_{'0' * 24}12345678"


def test_no_error_that_a_command_meets_speaks_of_http() -> None:
    shown = {code: in_command_words(kind.message, code) for code, kind in ERRORS.items()}
    assert {code: text for code, text in shown.items() if HTTP.search(text)} == {}
    assert all(text.strip() for text in shown.values())


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Unknown model 'x'. `GET /v1/models` lists the available ones, for example 'y'.", "`dreamery models` lists"),
        ("No worker 'a' responds; `GET /admin/v1/workers` lists them.", "`dreamery workers` lists them."),
        ("No account. Add one with `POST /v1/accounts`, or leave out `X-Accounts`.", "`dreamery accounts add --own`."),
    ],
)
def test_commands_are_named_in_place_of_calls(message: str, words: str) -> None:
    shown = in_command_words(message, "")
    assert words in shown
    assert not HTTP.search(shown)


def test_values_are_written_for_people() -> None:
    moment = 1_796_029_737
    assert describe(moment, "created_at") == local_time(moment)
    assert describe(moment, "state_since") == local_time(moment)
    assert describe([{"until": moment, "code": "x"}], "rests") == f"until: {local_time(moment)}, code: x"
    assert describe(3600, "grace_seconds") == "3600"
    assert describe(12, "resets_at") == "12", "not a moment"
    assert (describe(None), describe(value=False), describe([]), describe({})) == ("-", "no", "-", "-")
    assert describe("two\nlines") == "two lines"


def test_only_full_ids_are_shortened() -> None:
    assert short_id(ID) == "12345678"
    assert describe(ID, "id") == ID
    assert describe(["a", ID], "jobs", short_ids=True) == "a, 12345678"
    for text in ("job_123", "default", f"{ID}0", "sk-dreamery-0123456789abcdef0123456789abcdef"):
        assert short_id(text) == text


def test_help_lists_every_command_in_its_group() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).output
    places = [shown.index(f" {panel} ─") for panel in _PANELS]
    assert places == sorted(places)
    assert "─ Commands ─" not in shown
    for names in _PANELS.values():
        for name in names:
            assert re.search(rf"^│ {name} ", shown, re.MULTILINE), name


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("dreamery mo", {"models"}), ("dreamery jobs list --status c", {"completed", "cancelled"})],
)
def test_shells_complete_commands_and_values(typed: str, offered: set[str]) -> None:
    asked = {"_DREAMERY_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    words = [sys.executable, "-m", "api.cli.main"]
    done = subprocess.run(words, cwd=ROOT, env=clean_env(**asked), capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered


def model(**fields: object) -> dict[str, object]:
    return {"references": 0, "resolutions": ["1k", "2k"], "counts": [1], **fields}


def test_a_model_says_what_it_takes_and_makes() -> None:
    assert _takes(model()) == "text only"
    assert (_takes(model(references=1)), _takes(model(references=6))) == ("1 picture", "up to 6 pictures")
    assert _takes(model(references=2, first_frame=True, end_frame=True)) == "first and last frame"
    assert _takes(model(references=9, omni=True, first_frame=True)) == "up to 9 pictures, clips, sounds"
    assert _makes(model(counts=[4, 1])) == "1-4 pictures, 1k 2k"
    assert _makes(model(durations=[5, 10])) == "5/10 s, 1k 2k"
    assert _makes(model(durations=[4, 5, 6, 7])) == "4-7 s, 1k 2k"
    assert _makes(model(counts=[], resolutions=[])) == "text, pictures and videos"


def test_numbers_and_their_headers_are_right_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "a", "credits": 12345, "at": 1_796_029_737}, {"name": "long name", "credits": None, "at": None}]
    print_list(rows, ("name", "credits", "at"), as_json=False)
    head, first, second = capsys.readouterr().out.splitlines()
    end = head.index("credits") + len("credits")
    assert first[:end].endswith(" 12345")
    assert second[:end].endswith("      -")
    assert first.index("2026") == head.index("at"), "times are no numbers"


def test_a_secret_comes_last_and_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    print_with_secret({"id": ID, "key": "sk-1", "limits": {"x": None}, "models": None}, "key", "Key", as_json=False)
    assert capsys.readouterr().out.rstrip().endswith("Key, shown only this once:\nsk-1")


ACCOUNT = {"id": f"account_{'0' * 24}12345678", "label": "studio", "provider": "dreamina", "region": "us", "line": 1}


def test_adding_prints_what_a_person_needs(capsys: pytest.CaptureFixture[str]) -> None:
    good = {**ACCOUNT, "state": "ok", "credits": 1200, "models": {"images": 25}, "outcome": "added", "user": None}
    print_added([{**good, "check": {"done": True, "live": True, "error": None}}], [], own=False)
    text = capsys.readouterr().out
    assert text.startswith("Added: studio (12345678)\n")
    assert "1,200" in text
    assert len(text.splitlines()) == 6
    refused = {"done": True, "live": False, "error": {"code": "x", "message": "Upstream does not know it."}}
    dead = {**good, "state": "needs_login", "credits": None, "models": None, "check": refused}
    print_added([dead], [], own=True)
    text = capsys.readouterr().out
    assert text.startswith("Not accepted: studio (12345678)\n")
    assert "Upstream does not know it." in text
    assert "dreamery accounts login 12345678 - --own" in text
    print_added([good | {"check": None}], [{"line": 2, "error": {"message": "wrong form"}}], own=False)
    text = capsys.readouterr().out
    assert "studio: Next: `dreamery accounts check 12345678`" in text
    assert "Line 2: Next: correct the entry" in text
