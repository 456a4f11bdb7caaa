"""`POST /v1/estimate`, credits of jobs, and the administrator's view over HTTP; tasks run as functions."""

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
from worker.db.credits.balances import record_credits
from worker.db.engine import transaction
from worker.db.jobs import durations
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


def run_jobs(http: TestClient, engine: Engine, endpoint: str, body: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Run the real call and return its ended jobs."""
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
def test_estimate_equals_sandbox_charge(http: TestClient, engine: Engine, endpoint: str, body: dict[str, Any]) -> None:
    answer = estimate(http, endpoint, body)
    assert (answer["known"], {job["source"] for job in answer["jobs"]}) == (True, {"catalog"})
    assert answer["refusals"] == []
    jobs = run_jobs(http, engine, endpoint, body, f"{SESSION}:sandbox")
    charged = sum(line["amount"] for line in engine.ledger()["charges"])
    assert answer["credits"] == charged
    assert [job["usage"]["credits_estimated"] for job in jobs] == [job["credits"] for job in answer["jobs"]]
    assert sum(job["usage"]["credits_charged"] for job in jobs) == charged


def test_unknown_price_is_null_until_learned(http: TestClient, engine: Engine) -> None:
    key = "us-plain-estimates-1"
    body = {"prompt": "a boat", "resolution": "2k", "n": 2}
    answer = estimate(http, IMAGES, body, key)
    assert (answer["credits"], answer["known"], answer["jobs"][0]["source"]) == (None, False, "unknown")
    assert answer["refusals"] == [], "the call is accepted all the same"
    [job] = run_jobs(http, engine, IMAGES, body, key)
    assert job["usage"] == {"images": 2, "credits_estimated": None, "credits_charged": None}
    engine.sql("UPDATE jobs SET finished_at = finished_at - interval '1 minute'")
    sync_credits()
    after = http.get(f"/v1/jobs/{job['id']}", headers=auth(key)).json()
    assert after["usage"] == {"images": 2, "credits_estimated": None, "credits_charged": 4}
    answer = estimate(http, IMAGES, body, key)
    assert (answer["credits"], answer["jobs"][0]["source"]) == (4, "learned")
    assert answer["jobs"][0]["learned_at"]
    more = estimate(http, IMAGES, {**body, "n": 5}, key)
    assert (more["credits"], more["jobs"][0]["source"]) == (10, "scaled")


def test_open_job_shows_expected_credits(http: TestClient, engine: Engine) -> None:
    answer = http.post(IMAGES, json={"prompt": "a boat", "resolution": "4k", "n": 2, "async": True}, headers=auth())
    assert answer.json()["usage"] == {"credits_estimated": 8, "credits_charged": None}
    cancelled = http.post(f"/v1/jobs/{answer.json()['id']}/cancel", headers=auth()).json()
    assert cancelled["usage"] == {"credits_estimated": 8, "credits_charged": 0}


def image() -> str:
    out = io.BytesIO()
    Image.new("RGB", (64, 64)).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def test_estimate_creates_nothing(http: TestClient, engine: Engine, tmp_path: Path) -> None:
    answer = estimate(http, "/v1/images/edits", {"prompt": "at night", "image": image(), "n": 1})
    assert answer["credits"] == 2
    assert (answer["accounts"], answer["refusals"]) == ({"candidates": 1, "at_all": 1, "now": 1}, [])
    assert engine.sql("SELECT 1 FROM jobs UNION ALL SELECT 1 FROM accounts UNION ALL SELECT 1 FROM job_inputs") == []
    assert list((tmp_path / "data").rglob("*.png")) == []
    assert engine.submits() == []


INVALID = [
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


@pytest.mark.parametrize(("endpoint", "body"), INVALID)
def test_invalid_request_fails_like_the_real_call(http: TestClient, endpoint: str, body: dict[str, Any]) -> None:
    real = http.post(endpoint, json=body, headers=auth())
    answer = http.post("/v1/estimate", json={"endpoint": endpoint, "body": body}, headers=auth())
    assert real.status_code in {400, 404}
    assert (answer.status_code, answer.json()) == (real.status_code, real.json())


def test_probe_is_free_and_agent_price_is_unknown(http: TestClient) -> None:
    title = {"model": "jimeng-4.0", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    answer = estimate(http, CHAT, title)
    assert (answer["credits"], answer["jobs"], answer["eta"], answer["time_source"]) == (0, [], None, None)
    answer = estimate(http, CHAT, {"model": "agent", "messages": [{"role": "user", "content": "draw three boats"}]})
    assert (answer["credits"], answer["known"], answer["jobs"][0]["kind"]) == (None, False, "chat")


def test_estimate_tells_whether_its_time_was_learned(http: TestClient, engine: Engine) -> None:
    body = {"prompt": "a boat", "resolution": "1k", "n": 1}
    durations.clear_cache()
    assert estimate(http, IMAGES, body)["time_source"] == "default"
    for _ in range(5):
        run_jobs(http, engine, IMAGES, body, f"{SESSION}:sandbox")
    durations.clear_cache()
    assert estimate(http, IMAGES, body)["time_source"] == "learned"


def test_refusals_are_reported_with_reasons(http: TestClient, engine: Engine) -> None:
    key = engine.env["DREAMERY_ADMIN_KEY"]
    body = {"prompt": "a boat", "resolution": "4k", "n": 2}
    answer = estimate(http, IMAGES, body, key)
    assert [(one["code"], one["status"]) for one in answer["refusals"]] == [("no_account_available", 503)]
    account = engine.add_account(session="plain-estimates-02", pool=True)
    waits = estimate(http, IMAGES, body, key)
    assert (waits["refusals"], waits["accounts"]["now"]) == ([], 1)
    with transaction() as tx:
        record_credits(tx, account, 7)
    answer = estimate(http, IMAGES, body, key)
    assert [one["code"] for one in answer["refusals"]] == ["insufficient_quota"]
    assert (answer["credits"], answer["eta"]) == (8, None)
    assert answer["accounts"] == {"candidates": 1, "at_all": 0, "now": 0}
    engine.sql("UPDATE accounts SET credits = 8")
    engine.add_running_job(account), engine.add_running_job(account)
    answer = estimate(http, IMAGES, body, key)
    assert (answer["refusals"], answer["accounts"]) == ([], {"candidates": 1, "at_all": 1, "now": 0})
    assert answer["eta"]["p50"] > waits["eta"]["p50"]
    engine.sql("UPDATE accounts SET rest_until = now() + interval '1 hour', rest_code = 'upstream_risk_control'")
    assert [one["code"] for one in estimate(http, IMAGES, body, key)["refusals"]] == ["upstream_risk_control"]
    engine.configure(OPEN_JOBS_PER_CALLER="1")
    answer = estimate(http, IMAGES, {**body, "n": 9}, key)
    assert {one["code"] for one in answer["refusals"]} == {"queue_full", "insufficient_quota"}
    engine.sql("UPDATE accounts SET rest_until = NULL, credits = 34")
    answer = estimate(http, IMAGES, {**body, "n": 9}, key)
    assert answer["credits"] == 36
    short = answer["refusals"][-1]
    assert (short["code"], answer["accounts"]["at_all"]) == ("insufficient_quota", 1)
    assert "some would fail" in short["message"]


def test_administrator_sees_credit_history_and_prices(http: TestClient, engine: Engine) -> None:
    account = engine.add_account(session="us-plain-estimates-9", region="us", pool=True)
    with transaction() as tx:
        record_credits(tx, account, 500, seconds_ago=60)
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
