"""Every code of protocol tables 3.2 and 3.3: the response, the reaction of the engine, the cooldown of the account."""

from datetime import UTC, datetime

import pytest

from worker.core.errors import ERRORS, Reaction
from worker.providers.base import Account, RecordState
from worker.providers.dreamina.error_codes import error_code_for
from worker.providers.dreamina.job_records import parse_record
from worker.tasks.stages.cooldowns import KIND_COOLDOWN_SECONDS, cooldown_seconds

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = 3600
GIVE_UP, OTHER, LATER = Reaction.GIVE_UP, Reaction.OTHER_ACCOUNT, Reaction.RETRY_LATER

# our code: upstream's codes, HTTP status, type, reaction, minimum and maximum cooldown in seconds
TABLE = {
    "upstream_risk_control": (
        "-6 1019 1021 2035 2043 2049 4013", 503, "server_error", OTHER, 2 * HOUR, 24 * HOUR
    ),
    "rate_limit_exceeded": ("1 1057 1157 2014 2020 10020", 429, "rate_limit_error", LATER, 5, 60),
    "invalid_parameters": (
        "-5 -3 1000 1001 1189 1190 2006 2046 3021 4002 4101 4102 4103 4104 4105 4106 4107",
        400, "invalid_request_error", GIVE_UP, 0, 0,
    ),
    "upstream_error": (
        "-4 -2 1002 2001 2007 2009 2010 2012 2013 2015 2016 2024 2025 2026 2027 2028 2037",
        502, "server_error", GIVE_UP, 0, 0,
    ),
    "insufficient_quota": ("1006 4001 5000", 429, "insufficient_quota", OTHER, 60, HOUR),
    "concurrency_limit": ("1010 1310", 429, "rate_limit_error", LATER, 0, 0),
    "upstream_sign_error": ("1014", 502, "server_error", GIVE_UP, 0, 0),
    "upstream_session_expired": ("1015", 401, "authentication_error", OTHER, 60, HOUR),
    "upstream_permission_denied": ("1017 3018 4003", 403, "permission_error", OTHER, 0, 0),
    "account_limited": ("1018", 429, "rate_limit_error", OTHER, 12 * HOUR, 12.2 * HOUR),
    "content_policy_violation": (
        "1063 1159 2003 2004 2005 2038 2039 2040 2041 2042 2044 2048 2050 2203 2204",
        400, "invalid_request_error", GIVE_UP, 0, 0,
    ),
    "unsupported_language": ("1158 1161 1162 2056", 400, "invalid_request_error", GIVE_UP, 0, 0),
    "generation_failed": ("-7 2002 2011 2047 4007 5001 5002", 502, "server_error", GIVE_UP, 0, 0),
    "history_unavailable": ("2008 2031", 502, "server_error", GIVE_UP, 0, 0),
    "upstream_consent_required": ("4010", 403, "permission_error", OTHER, 0, 0),
    "daily_limit_reached": ("121101", 429, "insufficient_quota", OTHER, 12 * HOUR, 12.2 * HOUR),
}  # fmt: skip
ROWS = [(number, ours) for ours, row in TABLE.items() for number in row[0].split()]
# Table 3.3 of the document, without -1 ("still being processed"), 0 and the codes that are in 3.2 only.
IN_3_3 = """-7 -6 -5 -4 -3 -2 1 1000 1001 1002 1006 1014 1015 1018 1019 1021 1057 1063 1157 1158 1159 1161 1162 1189 1190
2001 2002 2003 2004 2005 2006 2007 2008 2009 2010 2011 2012 2013 2014 2015 2016 2020 2024 2025 2026 2027 2028 2031 2035
2037 2038 2039 2040 2041 2042 2043 2044 2046 2047 2048 2049 2050 2056 2203 2204 3021 4001 4003 4007 4010 4013 4101 4102
4103 4104 4105 4106 4107 5000 10020 121101"""


def test_error_table_is_complete() -> None:
    assert set(IN_3_3.split()) <= {number for number, _ in ROWS}
    assert len(ROWS) == len({number for number, _ in ROWS})


@pytest.mark.parametrize(("number", "ours"), ROWS)
def test_refused_submit_gets_the_reaction_of_the_table(number: str, ours: str) -> None:
    _, status, kind, reaction, least, most = TABLE[ours]
    for code in (error_code_for(number, "", "", ""), error_code_for("", number, "", "")):
        row = ERRORS[code]
        assert (row.code, row.status, row.type, row.reaction) == (ours, status, kind, reaction)
    assert least <= cooldown_seconds(ours, Account(id="a", region="us", session="s"), NOON) <= most


@pytest.mark.parametrize(("number", "ours"), ROWS)
def test_failure_after_acceptance_maps_to_our_code(number: str, ours: str) -> None:
    """The same reason in a final record: the job is not repeated, and the status replaces a vague reason."""
    record = parse_record("key", {"status": 30, "fail_code": number, "history_record_id": "1"})
    assert record.state is RecordState.FAILED
    assert record.error_code == ("generation_failed" if ours == "upstream_error" else ours)


def test_still_processing_code_is_unclear_at_submit_and_final_in_a_record() -> None:
    assert ERRORS[error_code_for("-1", "", "", "")].reaction is Reaction.UNCLEAR
    record = parse_record("key", {"status": 30, "fail_code": "-1", "history_record_id": "1"})
    assert record.error_code == "generation_failed"


def test_kind_cooldown_grows_with_job_duration() -> None:
    assert KIND_COOLDOWN_SECONDS["image"] < KIND_COOLDOWN_SECONDS["video"] <= 60
