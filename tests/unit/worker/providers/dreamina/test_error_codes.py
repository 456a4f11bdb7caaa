"""Upstream's codes, keys and texts against our error table (protocol sections 3.2 to 3.4)."""

import pytest

from worker.core.errors import ERRORS
from worker.providers.dreamina.error_codes import CODES, KEYS, TEXTS, clean, error_code_for, message_for

# Every number of table 3.3, copied from the document, not from faults.toml.
_TABLE_3_3 = """-7 -6 -5 -4 -3 -2 -1 1 1000 1001 1002 1006 1014 1015 1018 1019 1021 1057 1063 1157 1158 1159 1161 1162
1189 1190 2001 2002 2003 2004 2005 2006 2007 2008 2009 2010 2011 2012 2013 2014 2015 2016 2020 2024 2025 2026 2027 2028
2031 2035 2037 2038 2039 2040 2041 2042 2043 2044 2046 2047 2048 2049 2050 2056 2203 2204 3021 4001 4003 4007 4010 4013
4101 4102 4103 4104 4105 4106 4107 5000 10020 121101"""
TABLE_3_2 = {
    "upstream_risk_control": "-6 1019 1021 2035 2043 2049 4013",
    "rate_limit_exceeded": "1 1057 1157 2014 2020 10020",
    "invalid_parameters": "1000 1001 1189 1190 2006 2046 3021 4002 4101 4102 4103 4104 4105 4106 4107",
    "upstream_error": "1002",
    "insufficient_quota": "1006 4001 5000",
    "concurrency_limit": "1010 1310",
    "upstream_sign_error": "1014",
    "upstream_session_expired": "1015",
    "upstream_permission_denied": "1017 3018 4003",
    "account_limited": "1018",
    "content_policy_violation": "1063 2005 2038 2050 2003 2039 2041 2042 2044 2048 2203 1159 2004 2204",
    "unsupported_language": "1158 1161 1162 2056",
    "generation_failed": "2002 2011 2047 5001 5002",
    "history_unavailable": "2008 2031",
    "upstream_consent_required": "4010",
    "daily_limit_reached": "121101",
}
ROWS = [(number, ours) for ours, numbers in TABLE_3_2.items() for number in numbers.split()]


@pytest.mark.parametrize(("number", "ours"), ROWS)
def test_every_row_of_3_2_maps_as_ret_and_fail_code(number, ours):
    assert error_code_for(number, "", "", "") == ours
    assert error_code_for("", number, "", "") == ours


@pytest.mark.parametrize("number", _TABLE_3_3.split())
def test_every_code_of_3_3_is_known(number):
    assert number in CODES


def test_data_names_only_codes_of_our_table():
    assert {*CODES.values(), *KEYS.values(), *TEXTS.values()} <= ERRORS.keys()
    assert [part for part in [*KEYS, *TEXTS] if part != part.lower()] == []


@pytest.mark.parametrize(
    ("ret", "fail_code", "key", "text", "ours"),
    [
        ("-6", "4013", "web_risk_control_message_reject_generation", "", "upstream_risk_control"),
        ("-6", "2038", "", "", "upstream_risk_control"),
        ("3018", "1017", "", "", "upstream_permission_denied"),
        ("1002", "2038", "", "", "content_policy_violation"),
        ("1000", "1006", "", "", "insufficient_quota"),
        ("1002", "", "web_text_violates_community_guidelines_toast", "", "content_policy_violation"),
        ("1006", "", "web_text_violates_community_guidelines_toast", "", "insufficient_quota"),
        ("1015", "2038", "", "", "upstream_session_expired"),
        ("2038", "99999", "", "", "content_policy_violation"),
        ("99999", "", "", "", "upstream_error"),
        ("99999", "", "web_new_thing", "", "upstream_error"),
        ("", "", "web_new_thing", "", "generation_failed"),
        ("", "99999", "", "", "generation_failed"),
        ("", "", "", "", "generation_failed"),
        ("", "0", "", "", "generation_failed"),
        ("", "", "web_dre_m10n_generate_popup_credit_ininsufficient_title", "", "insufficient_quota"),
        ("", "", "WEB_Daily_Usage_Limit", "", "daily_limit_reached"),
        ("", "", "web_fail2generate_copyright_block", "", "content_policy_violation"),
        ("", "", "web_account_block", "", "upstream_risk_control"),
        ("", "", "web_system_busy", "", "rate_limit_exceeded"),
        ("", "", "web_risk_control_x", "against community guidelines: InputTextRisk", "upstream_risk_control"),
        ("", "", "", "Pre-TNS check did not pass", "content_policy_violation"),
        ("", "", "", "InputTextRisk", "content_policy_violation"),
        ("", "2002", "", "OutputImageRisk", "content_policy_violation"),
    ],
)
def test_most_specific_reason_takes_precedence(ret, fail_code, key, text, ours):
    assert error_code_for(ret, fail_code, key, text) == ours


def test_message_contains_upstream_text_without_secrets_and_control_characters():
    message = message_for("rate_limit_exceeded", "slow\x1b[31m down\nSYNTHETIC_SESSION_A", secret="SYNTHETIC_SESSION_A")
    assert message == "Too many requests in a short time. Try again later. Upstream: slow [31m down [hidden]"
    assert message_for("rate_limit_exceeded", " \n") == "Too many requests in a short time. Try again later."
    assert len(clean("x" * 100_000)) == 300
