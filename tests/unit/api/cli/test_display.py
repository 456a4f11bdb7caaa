"""What the commands print: errors without HTTP, local times, short ids, and the help in groups."""

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from api.cli.display.error_words import in_command_words
from api.cli.display.help_panels import _PANELS
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
