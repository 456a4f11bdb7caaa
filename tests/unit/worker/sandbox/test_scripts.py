"""Prompt scripts, account behaviour and random faults."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.sandbox.scripts import AccountBehaviour, Fault, Faults, Script, plain_text, read_behaviour, read_script


def test_plain_prompt_has_no_script():
    assert read_script("a red paper boat") == Script()


def test_scripts_combine():
    script = read_script("boat [[seconds:1.5]] on [[QUEUE:3]] a lake [[partial:2]] [[format:webp]] [[absent:2]]")
    assert (script.seconds, script.queue, script.partial) == (1.5, 3, 2)
    assert (script.image_format, script.absent, script.ending) == ("webp", 2, "50")


@pytest.mark.parametrize(
    ("code", "ending", "reason"),
    [
        ("10", "10", "2005"),
        ("30", "30", "2002"),
        ("40", "40", "2004"),
        ("100", "100", ""),
        ("2003", "30", "2003"),
        ("2038", "30", "2038"),
        ("5001", "30", "5001"),
    ],
)
def test_content_and_generation_codes_fail_the_job(code, ending, reason):
    script = read_script(f"[[fail:{code}]]")
    assert (script.ending, script.fail_code, script.refuse) == (ending, reason, "")


@pytest.mark.parametrize("code", ["-6", "1", "1000", "1006", "1310", "1015", "4013", "121101"])
def test_account_and_request_codes_refuse_the_submit(code):
    assert read_script(f"[[fail:{code}]]").refuse == code


def test_refuse_accepts_any_code():
    assert read_script("[[refuse:2038]]").refuse == "2038"


def test_faults_before_and_after_the_effect():
    script = read_script("[[reset:before]] [[reset:after]] [[http:503]] [[html]] [[empty]] [[empty:after]]")
    assert script.before == ("reset", "503", "html", "empty")
    assert script.after == ("reset", "empty")


@pytest.mark.parametrize("prompt", ["[[fail:]]", "[[fail:abc]]", "[[http:999]]", "[[nonsense:1]]", "[[", "[[]]"])
def test_unknown_words_are_ignored(prompt):
    assert read_script(prompt) == Script()


@given(st.text(alphabet="[]:abcdefghilmnopqrstuy0123456789.-naN e", max_size=80))
def test_any_text_can_be_parsed(text):
    script = read_script(text)
    assert script.queue >= 0
    assert script.seconds is None or 0 <= script.seconds <= 86_400
    plain_text(text)


def test_plain_text_removes_scripts():
    assert plain_text("[[hang]] a  boat [[seconds:2]]\n now") == "a boat now"


def test_session_id_words_script_the_account():
    assert read_behaviour("my-SHARK-1") == AccountBehaviour(shark=True)
    assert read_behaviour("punished") == AccountBehaviour(limited=True)
    assert read_behaviour("demo") == AccountBehaviour()


def test_no_faults_by_default():
    assert Faults().next_fault("/mweb/v1/aigc_draft/generate", AccountBehaviour()) == Fault()
    assert Faults().as_dict() == {}


def test_faults_are_reproducible_and_limited_to_their_paths():
    settings = {"http_500": 0.3, "reset_after": 0.3, "paths": ["/a"], "seed": 7}
    runs = []
    for _ in range(2):
        faults = Faults.parse(dict(settings))
        runs.append([faults.next_fault("/a", AccountBehaviour()) for _ in range(50)])
        assert faults.next_fault("/b", AccountBehaviour()) == Fault()
    assert runs[0] == runs[1]
    assert {fault.before for fault in runs[0]} == {"", "500"}
    assert {fault.after for fault in runs[0]} == {"", "reset"}


def test_faults_skip_media_unless_named():
    assert Faults.parse({"empty": 1}).next_fault("/_media", AccountBehaviour()) == Fault()
    assert Faults.parse({"empty": 1, "paths": ["/_media"]}).next_fault("/_media", AccountBehaviour()).before == "empty"


def test_flaky_accounts_fail_about_a_third_of_their_calls():
    faults = Faults()
    failures = sum(faults.next_fault("/a", AccountBehaviour(flaky=True)) != Fault() for _ in range(1000))
    assert 230 < failures < 370


def test_unknown_fault_settings_are_rejected():
    with pytest.raises(ValueError, match="unknown keys: http_501"):
        Faults.parse({"http_501": 1})


def test_word_inside_a_random_session_id_is_not_a_script() -> None:
    assert not read_behaviour("0123dead4567890abcdef0123456789a").dead
    assert read_behaviour("dead-0123456789abcdef0123456789abcdef").dead
    assert read_behaviour("dead0123456789abcdef0123456789abcdef").dead
    assert read_behaviour("my-dead-account").dead
    assert read_behaviour("dead").dead
