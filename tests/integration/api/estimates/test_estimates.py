"""`POST /v1/estimate`, what jobs tell of their credits, and the administrator's view: over HTTP, steps as functions."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from api.app import create_app
from api.generation import model_availability
from tests.support.engine import Engine
from worker.core.ids import parse_public_id, public_id
from worker.db.credits.balances import note_credits
from worker.db.engine import transaction
from worker.tasks.sync_credits import sync_credits

IMAGES, VIDEOS, CHAT = "/v1/images/generations", "/v1/videos/generations", "/v1/chat/completions"
SESSION = "plain-estimates-01"


@pytest.fixture
def http(engine: Engine) -> Iterator[TestClient]:
    model_availability.forget()
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        engine.sql("DELETE FROM accounts")  # the demo account of the pool
        yield client
    model_availability.forget()


def auth(key: str = f"{SESSION}:sandbox") -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def estimate(http: TestClient, endpoint: str, body: dict[str, Any], key: str = f"{SESSION}:sandbox") -> dict[str, Any]:
    answer = http.post("/v1/estimate", json={"endpoint": endpoint, "body": body}, headers=auth(key))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def made(http: TestClient, engine: Engine, endpoint: str, body: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The jobs of the real call, once they have ended."""
    answer = http.post(endpoint, json={**body, "async": True}, headers=auth(key))
    assert answer.status_code == 202, answer.text
    jobs = answer.json().get("jobs") or [answer.json()]
    ids = [parse_public_id("job", job["id"]) for job in jobs]
    assert set(engine.run_until_final(*[job_id for job_id in ids if job_id])) == {"succeeded"}
    return [http.get(f"/v1/jobs/{job['id']}", headers=auth(key)).json() for job in jobs]


ORDERS = [
    (IMAGES, {"prompt": "a boat", "resolution": "1k", "n": 1}),
    (IMAGES, {"prompt": "a boat", "resolution": "2k"}),
    (IMAGES, {"prompt": "a boat", "resolution": "4k", "n": 3}),
    (IMAGES, {"prompt": "a boat", "resolution": "1k", "n": 10}),
    (IMAGES, {"prompt": "a boat", "model": "jimeng-3.0", "resolution": "1k", "n": 6}),
    (IMAGES, {"prompt": "生成3张连续的故事", "resolution": "1k"}),
    (VIDEOS, {"prompt": "a boat", "duration": 5}),
    (VIDEOS, {"prompt": "a boat", "duration": 10, "resolution": "1080p", "n": 2}),
    (VIDEOS, {"prompt": "a boat", "model": "seedance-2.0", "duration": 4}),
    (CHAT, {"model": "jimeng-4.0", "messages": [{"role": "user", "content": "a boat -re 1k"}]}),
]


@pytest.mark.parametrize(("endpoint", "body"), ORDERS)
def test_the_estimate_is_what_the_sandbox_charges(
    http: TestClient, engine: Engine, endpoint: str, body: dict[str, Any]
) -> None:
    told = estimate(http, endpoint, body)
    assert (told["known"], {job["source"] for job in told["jobs"]}) == (True, {"catalog"})
    assert told["refusals"] == []
    jobs = made(http, engine, endpoint, body, f"{SESSION}:sandbox")
    charged = sum(line["amount"] for line in engine.ledger()["charges"])
    assert told["credits"] == charged
    assert [job["usage"]["credits_estimated"] for job in jobs] == [job["credits"] for job in told["jobs"]]
    assert sum(job["usage"]["credits_charged"] for job in jobs) == charged


def test_where_no_price_is_known_it_says_so_until_one_is_learned(http: TestClient, engine: Engine) -> None:
    key = "us-plain-estimates-1"
    body = {"prompt": "a boat", "resolution": "2k", "n": 2}
    told = estimate(http, IMAGES, body, key)
    assert (told["credits"], told["known"], told["jobs"][0]["source"]) == (None, False, "unknown")
    assert told["refusals"] == [], "the call is accepted all the same"
    [job] = made(http, engine, IMAGES, body, key)
    assert job["usage"] == {"images": 2, "credits_estimated": None, "credits_charged": None}
    engine.sql("UPDATE jobs SET finished_at = finished_at - interval '1 minute'")
    sync_credits()
    after = http.get(f"/v1/jobs/{job['id']}", headers=auth(key)).json()
    assert after["usage"] == {"images": 2, "credits_estimated": None, "credits_charged": 4}
    told = estimate(http, IMAGES, body, key)
    assert (told["credits"], told["jobs"][0]["source"]) == (4, "learned")
    assert told["jobs"][0]["learned_at"]
    more = estimate(http, IMAGES, {**body, "n": 5}, key)
    assert (more["credits"], more["jobs"][0]["source"]) == (10, "scaled")


def test_an_open_job_tells_what_it_is_expected_to_cost(http: TestClient, engine: Engine) -> None:
    answer = http.post(IMAGES, json={"prompt": "a boat", "resolution": "4k", "n": 2, "async": True}, headers=auth())
    assert answer.json()["usage"] == {"credits_estimated": 8, "credits_charged": None}
    cancelled = http.post(f"/v1/jobs/{answer.json()['id']}/cancel", headers=auth()).json()
    assert cancelled["usage"] == {"credits_estimated": 8, "credits_charged": 0}


def picture() -> str:
    out = io.BytesIO()
    Image.new("RGB", (64, 64)).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def test_nothing_is_made_by_it(http: TestClient, engine: Engine, tmp_path: Path) -> None:
    told = estimate(http, "/v1/images/edits", {"prompt": "at night", "image": picture(), "n": 1})
    assert told["credits"] == 2
    assert (told["accounts"], told["refusals"]) == ({"candidates": 1, "at_all": 1, "now": 1}, [])
    assert engine.sql("SELECT 1 FROM jobs UNION ALL SELECT 1 FROM accounts UNION ALL SELECT 1 FROM job_inputs") == []
    assert list((tmp_path / "data").rglob("*.png")) == []
    assert engine.submits() == []


BAD = [
    (IMAGES, {}),
    (IMAGES, {"prompt": "a", "n": 0}),
    (IMAGES, {"prompt": "a", "model": "nobody"}),
    (IMAGES, {"prompt": "a", "size": "10x9999"}),
    (IMAGES, {"prompt": "a", "mask": "x"}),
    ("/v1/images/edits", {"prompt": "a"}),
    (VIDEOS, {"prompt": "a", "duration": 7}),
    ("/v1/videos", {"prompt": "a", "n": 2}),
    (CHAT, {"model": "jimeng-4.0", "messages": []}),
    (CHAT, {"model": "jimeng-4.0", "messages": [{"role": "user", "content": "a -d 5"}]}),
]


@pytest.mark.parametrize(("endpoint", "body"), BAD)
def test_a_faulty_request_is_refused_as_the_real_call_refuses_it(
    http: TestClient, endpoint: str, body: dict[str, Any]
) -> None:
    real = http.post(endpoint, json=body, headers=auth())
    told = http.post("/v1/estimate", json={"endpoint": endpoint, "body": body}, headers=auth())
    assert real.status_code in {400, 404}
    assert (told.status_code, told.json()) == (real.status_code, real.json())


def test_chats_without_a_job_cost_nothing_and_the_agents_price_is_unknown(http: TestClient) -> None:
    title = {"model": "jimeng-4.0", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    told = estimate(http, CHAT, title)
    assert (told["credits"], told["jobs"], told["eta"]) == (0, [], None)
    told = estimate(http, CHAT, {"model": "agent", "messages": [{"role": "user", "content": "draw three boats"}]})
    assert (told["credits"], told["known"], told["jobs"][0]["kind"]) == (None, False, "chat")


def test_what_would_be_refused_and_why(http: TestClient, engine: Engine) -> None:
    key = engine.env["DREAMERY_ADMIN_KEY"]
    body = {"prompt": "a boat", "resolution": "4k", "n": 2}
    told = estimate(http, IMAGES, body, key)
    assert [(one["code"], one["status"]) for one in told["refusals"]] == [("no_account_available", 503)]
    account = engine.add_account(session="plain-estimates-02", pool=True)
    waits = estimate(http, IMAGES, body, key)
    assert (waits["refusals"], waits["accounts"]["now"]) == ([], 1)
    with transaction() as tx:
        note_credits(tx, account, 7)
    told = estimate(http, IMAGES, body, key)
    assert [one["code"] for one in told["refusals"]] == ["insufficient_quota"]
    assert (told["credits"], told["eta"]) == (8, None)
    assert told["accounts"] == {"candidates": 1, "at_all": 0, "now": 0}
    engine.sql("UPDATE accounts SET credits = 8")
    engine.add_running_job(account), engine.add_running_job(account)
    told = estimate(http, IMAGES, body, key)
    assert (told["refusals"], told["accounts"]) == ([], {"candidates": 1, "at_all": 1, "now": 0})
    assert told["eta"]["p50"] > waits["eta"]["p50"]
    engine.sql("UPDATE accounts SET rest_until = now() + interval '1 hour', rest_code = 'upstream_risk_control'")
    assert [one["code"] for one in estimate(http, IMAGES, body, key)["refusals"]] == ["upstream_risk_control"]
    engine.configure(OPEN_JOBS_PER_CALLER="1")
    told = estimate(http, IMAGES, {**body, "n": 9}, key)
    assert {one["code"] for one in told["refusals"]} == {"queue_full", "insufficient_quota"}
    engine.sql("UPDATE accounts SET rest_until = NULL, credits = 34")
    told = estimate(http, IMAGES, {**body, "n": 9}, key)
    assert told["credits"] == 36
    short = told["refusals"][-1]
    assert (short["code"], told["accounts"]["at_all"]) == ("insufficient_quota", 1)
    assert "some would fail" in short["message"]


def test_the_administrator_sees_curve_holds_days_and_prices(http: TestClient, engine: Engine) -> None:
    account = engine.add_account(session="us-plain-estimates-9", region="us", pool=True)
    with transaction() as tx:
        note_credits(tx, account, 500, seconds_ago=60)
    engine.add_succeeded_job(account, price=1)
    engine.add_running_job(account, price=2)
    engine.sql("UPDATE jobs SET finished_at = finished_at - interval '1 minute'")
    sync_credits()
    engine.sql("UPDATE accounts SET daily_receive = true")
    sync_credits()
    admin = auth(engine.env["DREAMERY_ADMIN_KEY"])
    found = http.get(f"/admin/v1/accounts/{public_id('account', account)}/credits", headers=admin).json()
    assert (found["credits"], found["left"], found["reserved"]) == (9_998, 9_998, 0)
    assert [point["credits"] for point in found["readings"]] == [500, 9_998]
    assert [(job["price"], job["taken"]) for job in found["open_jobs"]] == [(2, True)]
    assert [(day["jobs"], day["credits"], day["settled"]) for day in found["spent"]] == [(2, 2, 1)]
    assert [(gift["how"], gift["gained"]) for gift in found["receives"]] == [("daily", 0)]
    [listed] = http.get("/admin/v1/accounts", headers=admin).json()["data"]
    assert (listed["credits_left"], listed["daily_receive"]) == (9_998, True)
    prices = http.get("/admin/v1/prices", headers=admin).json()["data"]
    assert {(p["place"], p["model"], p["shape"], p["credits"], p["source"]) for p in prices} > {
        ("us", "jimeng-4.0", "1k x1", 1, "history"), ("sandbox", "image", "4k", 4, "catalog")
    }  # fmt: skip
    path = f"/admin/v1/accounts/{public_id('account', account)}"
    assert http.patch(path, json={"daily_receive": None}, headers=admin).json()["daily_receive"] is None
