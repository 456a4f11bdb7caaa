"""Responses have the format of the recorded ones. Calls the app directly, without a socket."""

import asyncio
import hashlib
import json
import time
import uuid
from pathlib import Path

import httpx
import pytest

from worker.sandbox.options import Options
from worker.sandbox.responses import refusal
from worker.sandbox.server import create_app

FIXTURES = Path(__file__).parents[3] / "fixtures" / "sandbox"
GENERATE = "/mweb/v1/aigc_draft/generate"
POLL = "/mweb/v1/get_history_by_ids"
CREDIT = "/commerce/v1/benefits/user_credit"


def recorded(name):
    return json.loads((FIXTURES / f"{name}.json").read_bytes())


def shape(value):
    """Return keys and types without values; integers and floats are one type."""
    if isinstance(value, dict):
        return {key: shape(child) for key, child in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def order(prompt="a boat", **core):
    body = recorded("generate.image.request.us")["body"]
    draft = json.loads(body["draft_content"])
    draft["component_list"][0]["abilities"]["generate"]["core_param"] |= {"prompt": prompt, **core}
    return {**body, "submit_id": str(uuid.uuid4()), "draft_content": json.dumps(draft)}


def call(app, path, body, *, session="demo", **headers):
    second = str(int(time.time()))
    sign = hashlib.md5(f"9e2c|{path[-7:]}|7|8.4.0|{second}||11ac".encode()).hexdigest()
    sent = {
        "Appid": "513641",
        "Appvr": "8.4.0",
        "Pf": "7",
        "Device-Time": second,
        "Sign": sign,
        "Sign-Ver": "1",
        "Cookie": f"sessionid={session}; cc-target-idc=alisg",
        **headers,
    }

    async def send():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
            return await client.post(path, params={"aid": sent["Appid"]}, json=body, headers=sent)

    return asyncio.run(send())


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("shark", "-6"),
        ("sign", "1014"),
        ("login_expired", "1015"),
        ("invalid_param", "1000"),
        ("common_1002", "1002"),
        ("concurrency", "1310"),
        ("insufficient_credit", "1006"),
        ("account_punished", "1018"),
        ("rate_limited", "1057"),
        ("risk_4013", "4013"),
        ("permission_3018", "3018"),
    ],
)
def test_refusals_match_the_recorded_ones(name, code):
    actual, expected = json.loads(refusal("mweb", code, 1_700_000_000.5).body), recorded(f"error.{name}")
    assert actual.pop("logid")
    expected.pop("logid")
    assert actual == expected


def test_submit_response_and_records():
    app = create_app(Options(seconds=0.0))
    body = order()
    answer = call(app, GENERATE, body).json()
    assert shape(answer) == shape(recorded("generate.image.response"))
    done = call(app, POLL, {"submit_ids": [body["submit_id"]]}).json()["data"][body["submit_id"]]
    expected = next(iter(recorded("get_history_by_ids.image.done.us")["data"].values()))
    links = done["item_list"][0]["common_attr"].pop("cover_url_map")
    assert set(links) == set(expected["item_list"][0]["common_attr"].pop("cover_url_map"))
    assert shape(done) == shape(expected)
    assert (done["status"], done["total_image_count"], done["finished_image_count"]) == (50, 4, 4)


def test_every_third_job_shows_items_in_status_45():
    app = create_app(Options(seconds=0.0))
    bodies = [order() for _ in range(3)]
    for body in bodies:
        call(app, GENERATE, body)
    data = call(app, POLL, {"submit_ids": [body["submit_id"] for body in bodies]}).json()["data"]
    records = [data[body["submit_id"]] for body in bodies]
    assert [one["status"] for one in records] == [50, 50, 45]
    assert (len(records[2]["item_list"]), records[2]["finished_image_count"], records[2]["finish_time"]) == (4, 4, 0)


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("[[fail:10]]", "failed.pre_check_10"),
        ("[[fail:40]]", "failed.post_check_40"),
        ("[[fail:30]]", "failed.generic"),
        ("[[fail:100]]", "deleted_100"),
    ],
)
def test_records_of_failed_jobs(script, name):
    app = create_app(Options(seconds=0.0))
    body = order(script)
    call(app, GENERATE, body)
    actual = call(app, POLL, {"submit_ids": [body["submit_id"]]}).json()["data"][body["submit_id"]]
    expected = next(iter(recorded(f"get_history_by_ids.{name}")["data"].values()))
    for key in ("status", "fail_code", "fail_starling_key", "fail_starling_message", "finished_image_count"):
        assert actual[key] == expected[key], key
    assert bool(actual["finish_time"]) == bool(expected["finish_time"])
    assert shape(actual) == shape(expected)


def test_queue_position_decreases():
    app = create_app(Options(seconds=0.0))
    body = order("[[queue:40]]")
    first = call(app, GENERATE, body).json()["data"]["aigc_data"]
    assert first["queue_info"] | {"queue_length": 0} == {
        **recorded("get_history_by_ids.image.queued")["data"]["11111111-1111-4111-8111-111111111111"]["queue_info"],
        "queue_idx": 40,
        "queue_length": 0,
    }
    later = call(app, POLL, {"submit_ids": [body["submit_id"]]}).json()["data"][body["submit_id"]]
    assert later["status"] == 20
    assert later["total_image_count"] == 0
    assert later["queue_info"]["queue_idx"] <= 40


def test_account_responses():
    app = create_app()
    info = "/lv/v1/user/web/user_info"
    assert shape(call(app, info, {}, session="a-jp").json()) == shape(recorded("user_info.jp"))
    jp = call(app, info, {}, session="a-jp").json()["data"]["location"]
    assert jp == recorded("user_info.jp")["data"]["location"]
    us = call(app, info, {}, session="us-b", Cookie="sessionid=us-b; cc-target-idc=useast5").json()["data"]
    assert us["location"] == recorded("user_info.us")["data"]["location"]
    assert call(app, info, {}, session="us-b").json()["ret"] == "1015"
    assert call(app, info, {}, session="anyone").json()["data"]["location"]["code"] == "US"
    passport = "/passport/account/info/v2"
    assert shape(call(app, passport, {}).json()) == shape(recorded("account_info.ok"))
    assert call(app, passport, {}, session="dead").json() == recorded("account_info.expired")


def test_commerce_responses_contain_the_payload_twice():
    app = create_app(Options(credits=50))
    received = call(app, "/commerce/v1/benefits/credit_receive", {}, session="gift").json()
    assert received["data"] == recorded("credit_receive.first")["data"]
    credit = call(app, CREDIT, {}, session="gift").json()
    assert shape(credit) == shape(recorded("user_credit"))
    assert json.loads(credit["response"]) == credit["data"]
    call(app, GENERATE, order(), session="gift")
    history = call(app, "/commerce/v1/benefits/user_credit_history", {"count": 20, "cursor": "0"}, session="gift")
    data = history.json()["data"]
    assert shape(data) == shape(recorded("user_credit_history")["data"])
    assert (data["total_credit"], data["records"][0]["amount"]) == (52, 8)


def test_sign_modes():
    wrong = {"Sign": "0" * 32}
    enforce, warn, off = (create_app(Options(sign=mode)) for mode in ("enforce", "warn", "off"))
    assert call(enforce, CREDIT, {}, **wrong).json()["ret"] == "1014"
    assert call(warn, CREDIT, {}, **wrong).json()["ret"] == "0"
    assert call(off, CREDIT, {}, **wrong).json()["ret"] == "0"
    counts = [app.state.sandbox.ledger_view(with_lists=False)["violations"].get("1014") for app in (enforce, warn, off)]
    assert counts == [1, 1, None]


def test_slots_limit_concurrent_jobs_per_account():
    app = create_app(Options(seconds=60, slots=2))
    assert [call(app, GENERATE, order()).json()["ret"] for _ in range(3)] == ["0", "0", "1310"]
    assert call(app, GENERATE, order(), session="other").json()["ret"] == "0"


@pytest.mark.parametrize(
    ("host", "path", "session", "appid", "expected"),
    [
        ("commerce.us.capcut.com", CREDIT, "a-us", "513641", "0"),
        ("commerce-us-ttp2.us.capcut.com", CREDIT, "a-us", "513641", "0"),
        ("commerce-api-sg.capcut.com", CREDIT, "hk-a", "513641", "0"),
        ("jimeng.jianying.com", CREDIT, "a-cn", "513695", "0"),
        ("jimeng.jianying.com", CREDIT, "plain", "513695", "0"),
        ("jimeng.jianying.com", CREDIT, "a-cn", "513641", "1000"),
        ("commerce.us.capcut.com", CREDIT, "a-sg", "513641", "1015"),
        ("commerce-api-sg.capcut.com", CREDIT, "a-us", "513641", "1015"),
        ("dreamina-api.us.capcut.com", CREDIT, "a-us", "513641", None),
        ("example.test", CREDIT, "a-us", "513641", None),
    ],
)
def test_hosts_and_clusters(host, path, session, appid, expected):
    answer = call(create_app(), path, {}, session=session, Appid=appid, **{"X-Orig-Host": host})
    assert (answer.json()["ret"] if answer.status_code == 200 else None) == expected
    if expected is None:
        assert answer.status_code == 404
        assert "<html>" in answer.text


def test_missing_cookie_is_a_login_error_and_a_violation():
    app = create_app()
    assert call(app, POLL, {"submit_ids": ["x"]}, Cookie="other=1").json()["ret"] == "1015"
    assert app.state.sandbox.ledger_view(with_lists=False)["violations"]["1015"] == 1


def test_ledger_contains_no_session_ids():
    app = create_app()
    call(app, GENERATE, order(), session="very-secret-one")
    call(app, GENERATE, {}, session="very-secret-one", Sign="x")
    ledger = json.dumps(app.state.sandbox.ledger_view(with_lists=True))
    assert "very-secret-one" not in ledger
    assert hashlib.sha256(b"very-secret-one").hexdigest()[:12] in ledger
