"""Each method of the provider against recorded responses (protocol sections 1.2, 3, 4, 6.8, 8)."""

import json

import httpx
import pytest

from tests.support.recorded_upstream import (
    KEY,
    SESSION,
    ScriptedUpstream,
    load_fixture,
    make_account,
    make_order,
    open_orders,
    read_fixture,
)
from worker.core.concurrency import event_loop
from worker.core.errors import DreameryError
from worker.providers.base import NotSentError, Provider, RecordState, Submitted
from worker.providers.credits import Credits

ERRORS_SEEN = [
    ("error.account_punished.json", "account_limited"),
    ("error.common_1002.json", "upstream_error"),
    ("error.concurrency.json", "concurrency_limit"),
    ("error.content_at_submit.json", "content_policy_violation"),
    ("error.empty_body.txt", "upstream_unreachable"),
    ("error.html_gateway.txt", "upstream_unreachable"),
    ("error.image_content_2003.json", "content_policy_violation"),
    ("error.insufficient_credit.json", "insufficient_quota"),
    ("error.insufficient_credit.legacy_5000.json", "insufficient_quota"),
    ("error.invalid_param.json", "invalid_parameters"),
    ("error.login_expired.json", "upstream_session_expired"),
    ("error.permission_3018.json", "upstream_permission_denied"),
    ("error.rate_limited.json", "rate_limit_exceeded"),
    ("error.risk_4013.json", "upstream_risk_control"),
    ("error.shark.json", "upstream_risk_control"),
    ("error.sign.json", "upstream_sign_error"),
]


def poll_error(script: ScriptedUpstream) -> DreameryError:
    with pytest.raises(DreameryError) as caught:
        event_loop.run(script.provider.submit_image(make_account(), make_order(), submit_key=KEY))
    return caught.value


def json_response(body: object, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=body)


def test_client_implements_provider():
    provider: Provider = ScriptedUpstream("user_credit.json").provider
    provider.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "code"), ERRORS_SEEN)
def test_every_recorded_refusal_maps_to_its_code(name, code):
    failure = poll_error(ScriptedUpstream(name))
    assert failure.code == code
    assert not isinstance(failure, NotSentError)
    assert SESSION not in f"{failure!r} {failure.message} {failure.detail}"


def test_refusal_keeps_upstream_text_and_log_id():
    failure = poll_error(ScriptedUpstream("error.shark.json"))
    assert failure.message.endswith(
        "Upstream: Couldn't generate due to unusual activity in your account. Try again later."
    )
    assert failure.detail is not None
    for part in ("ret=-6", "fail_code=4013", "key=web_risk_control", "logid=20231114000000EXAMPLELOGID00000001"):
        assert part in failure.detail


def test_echoed_session_is_hidden():
    body = {"ret": "1002", "errmsg": f"bad {SESSION}", "data": {"fail_starling_message": f"who is {SESSION}?"}}
    failure = poll_error(ScriptedUpstream(json_response(body)))
    assert failure.message.endswith("who is [hidden]?")
    assert SESSION not in str(failure.detail)


@pytest.mark.parametrize("name", ["generate.image.response.json", "generate.image.response.queued.json"])
def test_accepted_submit(name):
    taken = event_loop.run(ScriptedUpstream(name).provider.submit_image(make_account(), make_order(), submit_key=KEY))
    assert taken == Submitted("9000000000001", 12 if "queued" in name else None, None)


@pytest.mark.parametrize("ret", ["0", 0, None, "success"])
def test_record_is_found_in_both_places_and_ids_become_strings(ret):
    for data in ({"history_record_id": 9000000000002}, {"aigc_data": {"history_record_id": 9000000000002}}):
        taken = event_loop.run(
            ScriptedUpstream(json_response({"ret": ret, "data": data})).provider.submit_image(
                make_account(), make_order(), submit_key=KEY
            )
        )
        assert taken.upstream_id == "9000000000002"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (None, "upstream_unreachable"),
        ({}, "upstream_unreachable"),
        ([], "upstream_unreachable"),
        ({"aigc_data": {"status": 20}}, "upstream_unreachable"),
        ({"aigc_data": {"fail_code": "0"}, "fail_code": 0}, "upstream_unreachable"),
        ({"aigc_data": None, "fail_code": "2038"}, "content_policy_violation"),
        ({"aigc_data": {"fail_code": ""}, "fail_code": 1006}, "insufficient_quota"),
        ({"aigc_data": {"fail_code": "", "fail_starling_key": "web_rate_limited"}}, "rate_limit_exceeded"),
    ],
)
def test_success_without_record_is_unclear_unless_it_has_a_reason(data, code):
    failure = poll_error(ScriptedUpstream(json_response({"ret": "0", "data": data})))
    assert failure.code == code
    assert not isinstance(failure, NotSentError), "it may have been accepted: ordering it again may pay twice"


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (httpx.Response(500, text="oops"), "upstream_unreachable"),
        (json_response({"ret": "1006"}, 502), "upstream_unreachable"),
        (json_response({"ret": "1006"}, 403), "insufficient_quota"),
        (json_response({"error": "x"}, 403), "upstream_unreachable"),
        (json_response({"ret": "0", "data": {"history_record_id": "1"}}, 302), "upstream_unreachable"),
        (json_response([1]), "upstream_unreachable"),
    ],
)
def test_unexpected_http_responses_are_unreachable(response, code):
    failure = poll_error(ScriptedUpstream(response))
    assert failure.code == code
    assert not isinstance(failure, NotSentError)


def test_response_that_cannot_be_decompressed_is_unreachable():
    stream = httpx.ByteStream(b"\x1f\x8b broken")
    response = httpx.Response(200, stream=stream, headers={"content-encoding": "gzip"})
    failure = poll_error(ScriptedUpstream(response))
    assert failure.code == "upstream_unreachable"
    assert not isinstance(failure, NotSentError)


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
def test_unsent_request_raises_not_sent(error):
    def refuse(_request: httpx.Request) -> httpx.Response:
        raise error(f"no {SESSION}")

    failure = poll_error(ScriptedUpstream(refuse))
    assert isinstance(failure, NotSentError)
    assert failure.code == "upstream_unreachable"
    assert SESSION not in str(failure.detail)
    assert failure.__cause__ is None
    assert failure.__suppress_context__


@pytest.mark.parametrize("error", [httpx.ReadTimeout, httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadError])
def test_possibly_sent_request_is_unclear(error):
    def break_off(_request: httpx.Request) -> httpx.Response:
        raise error("gone")

    script = ScriptedUpstream(break_off)
    failure = poll_error(script)
    assert failure.code == "upstream_unreachable"
    assert not isinstance(failure, NotSentError)
    assert len(script.requests) == 1


def test_fetch_records_makes_one_call_and_omits_unknown_keys():
    fixture = load_fixture("get_history_by_ids.request.by_submit_ids.json")
    script = ScriptedUpstream("get_history_by_ids.batch.mixed.json")
    keys = fixture["body"]["submit_ids"]
    records = event_loop.run(script.provider.fetch_records(make_account("us"), open_orders(*keys)))
    assert {key: record.state for key, record in records.items()} == {
        keys[0]: RecordState.DONE,
        keys[1]: RecordState.RUNNING,
    }
    assert len(script.requests) == 1
    assert json.loads(script.last_request.content) == fixture["body"]
    query = dict(script.last_request.url.params)
    expected = {**fixture["query"], "web_id": query["web_id"]}
    del expected["web_component_open_flag"]  # absent on browser polls (section 2.1)
    assert query == expected


def test_fetch_records_without_keys_makes_no_call():
    script = ScriptedUpstream("error.shark.json")
    assert event_loop.run(script.provider.fetch_records(make_account(), [])) == {}
    assert script.requests == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("error.login_expired.json", "upstream_session_expired"),
        ("error.html_gateway.txt", "upstream_unreachable"),
        ("error.empty_body.txt", "upstream_unreachable"),
    ],
)
def test_fetch_records_never_reports_a_failure_as_unknown(answer, code):
    with pytest.raises(DreameryError) as caught:
        event_loop.run(ScriptedUpstream(answer).provider.fetch_records(make_account(), open_orders(KEY)))
    assert caught.value.code == code
    with pytest.raises(DreameryError):
        event_loop.run(
            ScriptedUpstream(json_response({"message": "error"})).provider.fetch_records(
                make_account(), open_orders(KEY)
            )
        )


@pytest.mark.parametrize(
    ("name", "gift"),
    [
        ("user_credit.json", 22),
        ("user_credit.response_string_only.json", 22),
        ("user_credit.zero.json", 0),
    ],
)
def test_fetch_credits(name, gift):
    script = ScriptedUpstream(name)
    expected = Credits(gift, {"giftCredit": gift, "purchaseCredit": 0, "vipCredit": 0})
    assert event_loop.run(script.provider.fetch_credits(make_account("us"))) == expected
    assert script.last_request.url.host == "commerce.us.capcut.com"
    assert script.last_request.content == b"{}"


@pytest.mark.parametrize(
    "body", [{"ret": "0"}, {"ret": "0", "data": 1, "response": "{"}, {"ret": "0", "response": "[]"}]
)
def test_unreadable_credits_raise_instead_of_zero(body):
    with pytest.raises(DreameryError) as caught:
        event_loop.run(ScriptedUpstream(json_response(body)).provider.fetch_credits(make_account()))
    assert caught.value.code == "upstream_error"


@pytest.mark.parametrize(("name", "gained"), [("credit_receive.first.json", 60), ("credit_receive.again.json", 0)])
def test_receive_credits(name, gained):
    script = ScriptedUpstream(name)
    assert event_loop.run(script.provider.receive_credits(make_account())) == gained
    assert json.loads(script.last_request.content) == {"time_zone": "Asia/Shanghai"}


@pytest.mark.parametrize("data", [{}, {"data": None}])
def test_daily_credits_are_read_from_the_string_form(data):
    """Some hosts answer with the JSON string `response` instead of `data`, as for the credits."""
    answer = {"ret": "0", "errmsg": "success", "response": '{"receive_quota": 60, "is_first_receive": true}', **data}
    assert event_loop.run(ScriptedUpstream(json_response(answer)).provider.receive_credits(make_account())) == 60
    broken = {**answer, "response": "{"}
    assert event_loop.run(ScriptedUpstream(json_response(broken)).provider.receive_credits(make_account())) == 0


def idc(request: httpx.Request) -> str:
    return request.headers["cookie"].rpartition("cc-target-idc=")[2]


def probes(answers: dict[str, str]) -> ScriptedUpstream:
    return ScriptedUpstream(
        lambda request: httpx.Response(200, text=read_fixture(answers.get(idc(request), "user_info.wrong_idc.json")))
    )


def test_look_up_hosts_returns_first_success_in_list_order():
    script = probes({"useast5": "user_info.us_ttp2.json", "sg1": "user_info.sg.json"})
    cluster = event_loop.run(script.provider.look_up_hosts(make_account("auto")))
    assert (cluster["country"], cluster["idc"]) == ("US", "useast5")
    request = script.requests[0]
    fixture = load_fixture("user_info.request.json")
    assert str(request.url).partition("?")[0] == fixture["url"]
    assert json.loads(request.content) == fixture["body"]
    assert {request.headers["cookie"].partition(";")[0] for request in script.requests} == {f"sessionid={SESSION}"}


def test_account_with_cluster_uses_its_hosts():
    script = probes({"alisg": "user_info.jp.json"})
    cluster = event_loop.run(script.provider.look_up_hosts(make_account("auto")))
    user = make_account("auto", cluster=cluster)
    with pytest.raises(DreameryError):
        event_loop.run(script.provider.fetch_records(user, open_orders(KEY)))
    assert script.last_request.url.host == "mweb-api-sg.capcut.com"
    assert script.last_request.url.params["region"] == "JP"
    assert idc(script.last_request) == "alisg"


def look_up_error(script: ScriptedUpstream) -> str:
    with pytest.raises(DreameryError) as caught:
        event_loop.run(script.provider.look_up_hosts(make_account("auto")))
    return caught.value.code


def test_look_up_hosts_distinguishes_bad_session_from_bad_network():
    def partly(request: httpx.Request) -> httpx.Response:
        if idc(request) == "hk":
            return httpx.Response(200, text=read_fixture("user_info.wrong_idc.json"))
        raise httpx.ReadTimeout("slow")

    assert look_up_error(probes({})) == "upstream_session_expired"
    assert look_up_error(ScriptedUpstream(partly)) == "upstream_session_expired"
    assert look_up_error(ScriptedUpstream("error.html_gateway.txt")) == "upstream_unreachable"
    assert look_up_error(ScriptedUpstream("error.rate_limited.json")) == "rate_limit_exceeded"
    assert look_up_error(ScriptedUpstream(json_response({"errmsg": "who?"}))) == "upstream_session_expired"
