"""Test vectors of the signature (protocol section 2.3) and the stable ids."""

import pytest

from worker.providers.dreamina.signing import sign, uid_token, web_id


@pytest.mark.parametrize(
    ("path", "appvr", "expected"),
    [
        ("/mweb/v1/aigc_draft/generate", "8.4.0", "a29e0b750501aa30af81fd309a15ceca"),
        ("/mweb/v1/get_history_by_ids", "8.4.0", "89fc65c93b50132b5eded79da14f0c14"),
        ("/commerce/v1/benefits/user_credit", "8.4.0", "f3f7a12f5f13aca1846fe2ea4fd8a65e"),
        ("/lv/v1/user/web/user_info", "5.8.0", "ea287b7d7d4f1b9124fb3c1505cc0b87"),
    ],
)
def test_sign_returns_the_recorded_values(path, appvr, expected):
    assert sign(path, appvr, 1700000000) == expected


def test_ids_are_stable_per_session_and_do_not_reveal_it():
    assert web_id("abc") == web_id("abc") != web_id("abd")
    assert len(web_id("abc")) == 19
    assert web_id("abc").isdigit()
    assert len(uid_token("abc")) == 32
