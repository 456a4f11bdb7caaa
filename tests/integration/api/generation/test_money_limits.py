"""Limits in money of users, keys and requests, on accounts that pay per use. Credits are counted apart."""

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.integration.api.generation.test_quotas import Add, Person
from tests.integration.api.generation.test_quotas import add as add  # noqa: PLC0414 - a fixture
from tests.integration.api.generation.test_quotas import client as client  # noqa: PLC0414 - a fixture
from tests.support.api_client import assert_error, forbids_retry
from tests.support.ark_jobs import ArkJobs
from tests.support.engine import Engine
from tests.support.uploads import make_image
from worker.core.ids import public_id

# 18 thousandths of a dollar for one image of any size.
MODEL, EACH = "seedream-5.0-flash", 0.018
WEB_MODEL = "jimeng-4.0"


@pytest.fixture
def ark(engine: Engine) -> ArkJobs:
    ark = ArkJobs(engine)
    ark.add_account(pool=True, max_images=50, submits_per_minute=60_000)
    return ark


def ask(person: Person, n: int = 1, **fields: Any) -> Any:
    return person.ask(model=MODEL, n=n, size="1024x1024", **fields)


def finish(ark: ArkJobs) -> None:
    jobs = [row.id for row in ark.engine.sql("SELECT id FROM jobs WHERE finished_at IS NULL")]
    ark.engine.run_until_final(*jobs)


@pytest.mark.usefixtures("ark")
def test_budget_in_money_refuses_what_would_exceed_it(add: Add) -> None:
    alice = add(usd_per_day=0.05)
    assert ask(alice, 2).status_code == 202
    refused = ask(alice)
    message = assert_error(refused, 429, "budget_exceeded")
    assert "0.036 of 0.05 used; this request needs 0.018 more" in message
    assert refused.headers["x-budget-limit"] == "user.usd_per_day"
    assert forbids_retry(refused)
    [limit] = [one for one in alice.usage()["limits"] if one["name"] == "usd_per_day"]
    assert (limit["used"], limit["hard"], limit["remaining"], limit["state"]) == (0.036, 0.05, 0.014, "ok")


@pytest.mark.usefixtures("ark")
def test_budget_is_exact_under_concurrent_requests(add: Add) -> None:
    alice = add(usd_per_month=EACH * 5)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: ask(alice, prompt=f"a boat {n}").status_code, range(12)))
    assert sorted(answers) == [202] * 5 + [429] * 7


@pytest.mark.usefixtures("ark")
def test_each_currency_and_credits_have_their_own_limits(engine: Engine, add: Add) -> None:
    alice = add(cny_per_day=0, credits_per_day=2)
    assert ask(alice).status_code == 202, "dollars are neither yuan nor credits"
    engine.add_account(pool=True)
    assert alice.ask(model=WEB_MODEL, resolution="2k").status_code == 202, "two credits"
    assert_error(alice.ask(model=WEB_MODEL, resolution="1k"), 429, "budget_exceeded")
    assert ask(alice, prompt="another").status_code == 202
    total = alice.usage()["total"]
    assert (total["credits"], total["usd"], total["cny"]) == (2, 0.036, 0.0)


@pytest.mark.usefixtures("ark")
def test_soft_limit_warns_in_money(add: Add) -> None:
    alice = add(usd_per_day=0.04)
    warning = ask(alice, 2).headers["x-budget-warning"]
    assert warning.startswith("user.usd_per_day; used=0.036; soft=0.032; hard=0.04; ")


def test_what_was_not_charged_is_available_again(add: Add, ark: ArkJobs) -> None:
    alice = add(usd_per_day=EACH)
    assert ask(alice, prompt="[[refuse:InputTextSensitiveContentDetected]] a boat").status_code == 202
    assert_error(ask(alice), 429, "budget_exceeded")
    finish(ark)
    assert ask(alice).status_code == 202
    finish(ark)
    assert_error(ask(alice, prompt="more"), 429, "budget_exceeded")
    assert alice.usage()["total"]["usd"] == EACH


@pytest.mark.parametrize("where", ["body", "header", "key", "user"])
@pytest.mark.usefixtures("ark")
def test_request_above_its_most_cost_is_refused_before_a_job_exists(engine: Engine, add: Add, where: str) -> None:
    alice = add()
    fields: dict[str, Any] = {}
    if where == "body":
        fields["max_cost"] = 0.05
    elif where == "header":
        fields["headers"] = {"X-Max-Cost": "0.05 USD"}
    else:
        alice.limit("api_keys" if where == "key" else "users", max_cost=0.05)
    message = assert_error(ask(alice, 3, **fields), 400, "max_cost_exceeded", "max_cost")
    assert "0.05 USD" in message
    assert "0.054 USD" in message, "of all jobs of the request"
    assert engine.sql("SELECT count(*) AS n FROM jobs")[0].n == 0
    assert ask(alice, 2, **fields).status_code == 202


@pytest.mark.usefixtures("ark")
def test_most_cost_in_another_currency_or_of_an_unknown_price(engine: Engine, add: Add) -> None:
    alice = add()
    assert "USD" in assert_error(ask(alice, max_cost="1 CNY"), 400, "max_cost_exceeded", "max_cost")
    # An account whose own prices name no price for this size of video.
    engine.sql("""UPDATE accounts SET prices = '{"seedream-5.0-flash": {"prices": []}}' WHERE provider = 'ark'""")
    assert_error(ask(alice, max_cost=100), 400, "max_cost_exceeded", "max_cost")
    assert ask(alice).status_code == 202


def test_limit_holds_when_the_account_became_more_expensive(engine: Engine, add: Add, ark: ArkJobs) -> None:
    alice = add()
    assert ask(alice, 2, max_cost=0.05).status_code == 202
    engine.sql("""UPDATE accounts SET prices = '{"*": {"factor": 1.5}}' WHERE provider = 'ark'""")
    finish(ark)
    rows = engine.sql("SELECT state, error_code, charged FROM jobs")
    assert [tuple(row) for row in rows] == [("failed", "max_cost_exceeded", 0)] * 2
    assert ark.ledger()["totals"].get("image_calls", 0) == 0, "nothing was submitted"
    engine.sql("""UPDATE accounts SET prices = '{"*": {"factor": 1.3}}' WHERE provider = 'ark'""")
    assert ask(alice, 2, prompt="another", max_cost=0.05).status_code == 202
    finish(ark)
    assert alice.usage()["total"]["usd"] == 0.046


@pytest.mark.usefixtures("ark")
def test_wrong_most_cost(add: Add) -> None:
    alice = add()
    for value in ("much", -1, True, [], "1 EUR"):
        assert_error(ask(alice, max_cost=value), 400, "invalid_value", "max_cost")
    assert_error(ask(alice, headers={"X-Max-Cost": "0.5 EUR"}), 400, "invalid_value", "x-max-cost")
    assert ask(alice, max_cost=None, headers={"X-Max-Cost": ""}).status_code == 202


def test_most_cost_does_not_concern_credits(engine: Engine, add: Add) -> None:
    engine.add_account(pool=True)
    assert add(max_cost=0).ask(model=WEB_MODEL).status_code == 202


def test_estimate_shows_money_and_the_refusal(client: TestClient, add: Add, ark: ArkJobs) -> None:
    alice = add(max_cost=0.02)
    body = {
        "endpoint": "/v1/images/generations",
        "body": {"model": MODEL, "prompt": "a boat", "n": 2, "size": "1024x1024"},
    }
    answer = client.post("/v1/estimate", json=body, headers={"Authorization": f"Bearer {alice.key}"}).json()
    assert (answer["credits"], answer["currency"], answer["cost"], answer["known"]) == (36, "USD", 0.036, True)
    assert [(job["credits"], job["currency"], job["cost"]) for job in answer["jobs"]] == [(18, "USD", 0.018)] * 2
    assert [refusal["code"] for refusal in answer["refusals"]] == ["max_cost_exceeded"]
    assert ark.engine.sql("SELECT count(*) AS n FROM jobs")[0].n == 0


def test_job_shows_money(client: TestClient, add: Add, ark: ArkJobs) -> None:
    alice = add()
    job = ask(alice).json()
    money = {name: job["usage"][name] for name in ("currency", "cost_estimated", "cost_charged", "credits_estimated")}
    assert money == {"currency": "USD", "cost_estimated": EACH, "cost_charged": None, "credits_estimated": 18}
    finish(ark)
    done = client.get(f"/v1/jobs/{job['id']}", headers={"Authorization": f"Bearer {alice.key}"}).json()
    assert (done["usage"]["cost_charged"], done["usage"]["credits_charged"]) == (EACH, 18)


IMAGES, VIDEOS = "/v1/images/generations", "/v1/videos/generations"
CLIP = "https://example.com/clip.mp4"
PICTURE = "data:image/png;base64," + base64.b64encode(make_image("red", side=1024)).decode()


@pytest.mark.parametrize(
    ("endpoint", "body", "credits_each"),
    [
        (VIDEOS, {"model": "seedance-2.0", "duration": 5, "resolution": "720p", "ratio": "16:9"}, [763]),
        (VIDEOS, {"model": "seedance-2.0", "duration": 5, "resolution": "1080p", "ratio": "16:9"}, [1887]),
        (VIDEOS, {"model": "seedance-1.0-pro", "duration": 5, "resolution": "720p", "ratio": "16:9"}, [273]),
        (
            VIDEOS,
            {"model": "seedance-1.0-pro", "duration": 5, "resolution": "720p", "ratio": "16:9", "service_tier": "flex"},
            [137],
        ),
        # The length of the reference video is not known yet: the longest counts.
        (
            VIDEOS,
            {"model": "seedance-2.0", "duration": 5, "resolution": "720p", "ratio": "16:9", "videos": [CLIP]},
            [1862],
        ),
        (IMAGES, {"model": "seedream-5.0-pro", "size": "1024x1024", "n": 2}, [45, 45]),
        (IMAGES, {"model": "seedream-5.0-pro", "size": "2048x2048", "n": 1}, [90]),
        (IMAGES, {"model": "seedream-4.5", "size": "2048x2048", "n": 3, "series": True}, [120]),
        (IMAGES, {"model": "seedream-5.0-pro", "size": "1024x1024", "n": 1, "images": [PICTURE] * 3}, [51]),
        (IMAGES, {"model": "seedream-5.5", "size": "1024x1024", "n": 1, "images": [PICTURE]}, [28]),
        (IMAGES, {"model": "seedream-5.0-pro", "n": 1, "layers": True, "image": PICTURE, "resolution": "2k"}, [765]),
    ],
)
@pytest.mark.usefixtures("ark")
def test_estimates_of_real_requests(
    engine: Engine, client: TestClient, add: Add, endpoint: str, body: dict[str, Any], credits_each: list[int]
) -> None:
    engine.configure(PUBLIC_URL="https://dreamery.example")
    request = {"endpoint": endpoint, "body": {"prompt": "a boat", **body}}
    answer = client.post("/v1/estimate", json=request, headers={"Authorization": f"Bearer {add().key}"})
    assert answer.status_code == 200, answer.text
    assert [job["credits"] for job in answer.json()["jobs"]] == credits_each
    assert answer.json()["cost"] == sum(credits_each) / 1000


def test_operator_sees_money_of_an_account_and_the_list_prices(
    engine: Engine, client: TestClient, add: Add, ark: ArkJobs
) -> None:
    assert ask(add()).status_code == 202
    finish(ark)
    admin = {"Authorization": f"Bearer {engine.env['DREAMERY_ADMIN_KEY']}"}
    account = engine.sql("SELECT account_id FROM jobs LIMIT 1")[0].account_id
    shown = client.get(f"/admin/v1/accounts/{public_id('account', account)}/credits", headers=admin).json()
    assert (shown["currency"], shown["credits"], shown["left"]) == ("USD", None, None)
    assert [(day["jobs"], day["credits"], day["settled"]) for day in shown["spent"]] == [(1, 18, 18)]
    prices = client.get("/admin/v1/prices", params={"model": MODEL}, headers=admin).json()["data"]
    lines = [(line["currency"], line["price"], line["unit"], line["credits"], line["source"]) for line in prices]
    assert lines == [("USD", 0.018, "image", 18, "list"), ("CNY", 0.126, "image", 126, "list")]


def test_limits_in_money_are_set_over_http(engine: Engine, client: TestClient, add: Add) -> None:
    alice = add()
    admin = {"Authorization": f"Bearer {engine.env['DREAMERY_ADMIN_KEY']}"}
    path = f"/admin/v1/users/{public_id('user', alice.user_id)}"
    body = {"limits": {"usd_per_month": 2.5, "max_cost": 0.125}, "soft_limits": {"usd_per_month": 2}}
    changed = client.patch(path, json=body, headers=admin)
    assert changed.status_code == 200, changed.text
    assert (changed.json()["limits"]["usd_per_month"], changed.json()["limits"]["max_cost"]) == (2.5, 0.125)
    assert changed.json()["soft_limits"]["usd_per_month"] == 2
    for wrong in ({"usd_per_month": -1}, {"max_cost": "cheap"}, {"eur_per_day": 1}):
        assert client.patch(path, json={"limits": wrong}, headers=admin).status_code == 400
    key = client.patch(
        f"/admin/v1/keys/{public_id('key', alice.key_id)}", json={"limits": {"max_cost": 0.01}}, headers=admin
    )
    assert key.json()["limits"]["max_cost"] == 0.01
