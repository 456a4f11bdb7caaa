"""Prompt scripts, account roles and the fault machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.sandbox.scripts import Fault, Faults, Role, Script, plain_text, read_role, read_script


def test_a_plain_prompt_has_no_script():
    assert read_script("a red paper boat") == Script()


def test_scripts_combine():
    script = read_script("boat [[seconds:1.5]] on [[QUEUE:3]] a lake [[partial:2]] [[format:png]] [[absent:2]]")
    assert (script.seconds, script.queue, script.partial) == (1.5, 3, 2)
    assert (script.picture, script.absent, script.ending) == ("png", 2, "50")


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
def test_codes_of_content_and_generation_end_the_record(code, ending, reason):
    script = read_script(f"[[fail:{code}]]")
    assert (script.ending, script.fail_code, script.refuse) == (ending, reason, "")


@pytest.mark.parametrize("code", ["-6", "1", "1000", "1006", "1310", "1015", "4013", "121101"])
def test_codes_of_accounts_and_requests_refuse_the_submit(code):
    assert read_script(f"[[fail:{code}]]").refuse == code


def test_refuse_takes_any_code():
    assert read_script("[[refuse:2038]]").refuse == "2038"


def test_faults_know_their_moment():
    script = read_script("[[reset:before]] [[reset:after]] [[http:503]] [[html]] [[empty]] [[empty:after]]")
    assert script.before == ("reset", "503", "html", "empty")
    assert script.after == ("reset", "empty")


@pytest.mark.parametrize("prompt", ["[[fail:]]", "[[fail:abc]]", "[[http:999]]", "[[nonsense:1]]", "[[", "[[]]"])
def test_nonsense_is_left_alone(prompt):
    assert read_script(prompt) == Script()


@given(st.text(alphabet="[]:abcdefghilmnopqrstuy0123456789.-naN e", max_size=80))
def test_any_text_can_be_read(text):
    script = read_script(text)
    assert script.queue >= 0
    assert script.seconds is None or 0 <= script.seconds <= 86_400
    plain_text(text)


def test_plain_text_drops_the_scripts():
    assert plain_text("[[hang]] a  boat [[seconds:2]]\n now") == "a boat now"


def test_roles_are_words_inside_the_session_id():
    assert read_role("my-SHARK-1") == Role(shark=True)
    assert read_role("punished") == Role(limited=True)
    assert read_role("demo") == Role()


def test_faults_off_draw_nothing():
    assert Faults().draw("/mweb/v1/aigc_draft/generate", Role()) == Fault()
    assert Faults().show() == {}


def test_faults_repeat_with_their_seed_and_keep_to_their_paths():
    wish = {"http_500": 0.3, "reset_after": 0.3, "paths": ["/a"], "seed": 7}
    runs = []
    for _ in range(2):
        faults = Faults.read(dict(wish))
        runs.append([faults.draw("/a", Role()) for _ in range(50)])
        assert faults.draw("/b", Role()) == Fault()
    assert runs[0] == runs[1]
    assert {fault.before for fault in runs[0]} == {"", "500"}
    assert {fault.after for fault in runs[0]} == {"", "reset"}


def test_media_is_only_disturbed_when_named():
    assert Faults.read({"empty": 1}).generate_images("/_media", Role()) == Fault()
    assert Faults.read({"empty": 1, "paths": ["/_media"]}).generate_images("/_media", Role()).before == "empty"


def test_flaky_accounts_stumble_on_about_a_third_of_their_calls():
    faults = Faults()
    stumbles = sum(faults.draw("/a", Role(flaky=True)) != Fault() for _ in range(1000))
    assert 230 < stumbles < 370


def test_unknown_fault_settings_are_refused():
    with pytest.raises(ValueError, match="unknown keys: http_501"):
        Faults.read({"http_501": 1})


def test_a_word_that_a_random_id_holds_by_chance_is_no_script() -> None:
    assert not read_role("0123dead4567890abcdef0123456789a").dead
    assert read_role("dead-0123456789abcdef0123456789abcdef").dead
    assert read_role("dead0123456789abcdef0123456789abcdef").dead
    assert read_role("my-dead-account").dead
    assert read_role("dead").dead
