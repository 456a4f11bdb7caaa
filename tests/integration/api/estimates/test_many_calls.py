"""`POST /v1/estimate` for many calls: a line for each, the totals, and the limits for all of them together."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.generation import model_availability
from api.usage.estimates.schemas import EstimateOfMany
from tests.support.api_client import assert_error
from tests.support.engine import Engine
from worker.core.catalog.models import get_catalog
from worker.db.engine import transaction
from worker.db.users import api_keys, users

IMAGES, VIDEOS = "/v1/images/generations", "/v1/videos/generations"


@pytest.fixture
def http(engine: Engine) -> Iterator[TestClient]:
    model_availability.forget()
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        with transaction() as tx:
            user = users.add_user(tx, name="alice", role="member")
            _, secret = api_keys.create_key(tx, api_keys.NewKey(user_id=user.id, name="alice"))
        client.headers["Authorization"] = f"Bearer {secret}"
        yield client
    model_availability.forget()


def estimate(http: TestClient, **body: Any) -> dict[str, Any]:
    answer = http.post("/v1/estimate", json=body)
    assert answer.status_code == 200, answer.text
    EstimateOfMany.model_validate(answer.json())
    found: dict[str, Any] = answer.json()
    return found


def test_lines_and_total_are_the_estimates_of_the_calls(http: TestClient, engine: Engine) -> None:
    calls = [
        {"endpoint": IMAGES, "body": {"prompt": "a boat", "n": 1, "resolution": "2k", "ratio": "16:9"}},
        {"endpoint": IMAGES, "body": {"prompt": "a car", "n": 4, "resolution": "4k"}},
        {"endpoint": VIDEOS, "body": {"prompt": "a boat sails", "duration": 5}},
    ]
    answer = estimate(http, requests=calls)
    single = [http.post("/v1/estimate", json=call).json() for call in calls]
    assert [line["credits"] for line in answer["requests"]] == [one["credits"] for one in single]
    assert [line["jobs"] for line in answer["requests"]] == [len(one["jobs"]) for one in single]
    assert [(line["prompt"], line["results"]) for line in answer["requests"]] == [
        ("a boat", 1),
        ("a car", 4),
        ("a boat sails", 1),
    ]
    assert (answer["requests"][0]["ratio"], answer["requests"][2]["seconds"]) == ("16:9", 5)
    total = sum(one["credits"] for one in single)
    assert answer["totals"] == [
        {"currency": None, "credits": total, "cost": None, "jobs": answer["jobs"], "known": True}
    ]
    assert (answer["results"], answer["errors"], answer["refusals"], answer["acceptable"]) == (6, 0, [], True)
    assert answer["eta"]["p50"] >= max(one["eta"]["p50"] for one in single)
    assert engine.sql("SELECT count(*) AS n FROM jobs")[0].n == 0


def test_matrix_is_expanded_in_the_order_of_reading(http: TestClient) -> None:
    image, video = get_catalog().default_image_model, get_catalog().default_video_model
    matrix = {
        "prompts": ["a {red|blue} boat"],
        "variants": True,
        "models": [image, video],
        "ratios": ["1:1", "16:9"],
        "n": 1,
    }
    answer = estimate(http, matrix=matrix)
    assert [(line["prompt"], line["model"], line["ratio"]) for line in answer["requests"]] == [
        (prompt, model, ratio)
        for prompt in ("a red boat", "a blue boat")
        for model in (image, video)
        for ratio in ("1:1", "16:9")
    ]
    assert answer["acceptable"]


def test_an_invalid_call_is_an_error_of_its_line(http: TestClient) -> None:
    calls = [
        {"endpoint": IMAGES, "body": {"prompt": "a boat", "n": 1}},
        {"endpoint": IMAGES, "body": {"prompt": "a boat", "n": "many"}},
        {"endpoint": IMAGES, "body": {"prompt": "a boat", "ratio": "7:5"}},
        {"endpoint": VIDEOS, "body": {"prompt": "a boat", "model": "no-such-model"}},
    ]
    answer = estimate(http, requests=calls)
    errors = [line["error"] and (line["error"]["code"], line["error"]["param"]) for line in answer["requests"]]
    assert errors == [None, ("invalid_value", "n"), ("invalid_value", "ratio"), ("model_not_found", "model")]
    assert (answer["errors"], answer["acceptable"]) == (3, False)
    # The total counts what would be made.
    assert answer["totals"][0]["jobs"] == 1


def test_limits_count_all_calls_together(http: TestClient, engine: Engine) -> None:
    engine.sql("UPDATE users SET limits = '{\"jobs_per_day\": 3}' WHERE name = 'alice'")
    call = {"endpoint": IMAGES, "body": {"prompt": "a boat", "n": 1}}
    assert estimate(http, requests=[call] * 3)["acceptable"]
    answer = estimate(http, requests=[call] * 4)
    assert (answer["errors"], [one["code"] for one in answer["refusals"]]) == (0, ["budget_exceeded"])
    assert answer["acceptable"] is False


def test_an_account_without_enough_credits_for_all(http: TestClient, engine: Engine) -> None:
    call = {"endpoint": IMAGES, "body": {"prompt": "a boat", "n": 1, "resolution": "4k"}}
    price = estimate(http, requests=[call])["totals"][0]["credits"]
    engine.sql("UPDATE accounts SET credits = :n, credits_at = now() WHERE provider = 'dreamina'", n=2 * price)
    assert estimate(http, requests=[call] * 2)["acceptable"]
    assert [one["code"] for one in estimate(http, requests=[call] * 3)["refusals"]] == ["insufficient_quota"]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_required_parameter", "endpoint"),
        ({"endpoint": IMAGES}, "missing_required_parameter", "body"),
        ({"requests": []}, "invalid_value", "requests"),
        ({"requests": [{"endpoint": IMAGES, "body": {}}] * 501}, "invalid_value", "requests"),
        ({"requests": [{"endpoint": "/v1/music", "body": {}}]}, "invalid_value", "requests.0.endpoint"),
        ({"matrix": {"prompts": ["{a|b}" * 30], "variants": True}}, "invalid_value", "prompts"),
        ({"matrix": {"prompts": ["a {b"], "variants": True}}, "invalid_value", "prompts.0"),
        ({"matrix": {"prompts": []}}, "invalid_value", "matrix.prompts"),
        ({"endpoint": IMAGES, "body": {}, "matrix": {"prompts": ["a"]}}, "invalid_value", "matrix"),
    ],
)
def test_what_cannot_be_estimated_is_refused_as_a_whole(
    http: TestClient, body: dict[str, Any], code: str, param: str
) -> None:
    assert_error(http.post("/v1/estimate", json=body), 400, code, param)
