"""`GET /v1/models?details=true`: price, usual time, sample, and why a model cannot be used."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.generation import model_availability
from api.generation.models.schemas import ModelList
from tests.support.engine import Engine
from worker.core.catalog.models import get_catalog
from worker.core.ids import public_id
from worker.db.engine import transaction
from worker.db.jobs import durations
from worker.db.users import api_keys, users


@pytest.fixture
def http(engine: Engine) -> Iterator[TestClient]:
    for cached in (model_availability.forget, durations.clear_cache):
        cached()
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        yield client
    for cached in (model_availability.forget, durations.clear_cache):
        cached()


def add_key(name: str, **fields: Any) -> tuple[UUID, dict[str, str]]:
    """Add a user with a key; return the user's id and the headers of the key."""
    with transaction() as tx:
        user = users.add_user(tx, name=name, role="member").id
        _, secret = api_keys.create_key(tx, api_keys.NewKey(user_id=user, name=name, **fields))
    return user, {"Authorization": f"Bearer {secret}"}


def details(http: TestClient, headers: dict[str, str]) -> dict[str, dict[str, Any]]:
    answer = http.get("/v1/models", params={"details": "true"}, headers=headers)
    assert answer.status_code == 200, answer.text
    ModelList.model_validate(answer.json())
    return {row["id"]: row for row in answer.json()["data"]}


def test_prices_are_those_of_an_estimate_with_the_defaults(http: TestClient) -> None:
    _, headers = add_key("alice")
    rows = details(http, headers)
    priced = [row for row in rows.values() if row["listed"] and row.get("price") and row["alias_of"] is None]
    assert {row["kind"] for row in priced} == {"image", "video"}
    for row in priced:
        path = "/v1/images/generations" if row["kind"] == "image" else "/v1/videos/generations"
        body = {"prompt": "a boat", "model": row["id"]}
        answer = http.post("/v1/estimate", json={"endpoint": path, "body": body}, headers=headers).json()
        # A model without counts makes each picture as a job of its own; the price is that of one.
        first = answer["jobs"][0]
        assert [row["price"][name] for name in ("credits", "resolution", "pictures", "seconds")] == [
            first[name] for name in ("credits", "resolution", "pictures", "seconds")
        ], row["id"]


def test_models_without_an_account_are_there_with_the_reason(http: TestClient, engine: Engine) -> None:
    engine.sql("DELETE FROM accounts WHERE provider = 'ark'")
    _, headers = add_key("alice")
    rows = details(http, headers)
    plain = {row["id"] for row in http.get("/v1/models", headers=headers).json()["data"]}
    assert {name for name, row in rows.items() if row["listed"]} == plain
    others = [row for row in rows.values() if not row["listed"]]
    assert {row["obstacle"] for row in others if row["provider"] == "ark"} == {"no_account"}
    assert all(row["available"] is False and row["price"] is None for row in others)
    assert all(row["available"] and row["obstacle"] is None for name, row in rows.items() if name in plain - {"agent"})


def test_a_key_for_some_models_says_so(http: TestClient) -> None:
    model = get_catalog().default_image_model
    _, headers = add_key("alice", models=[model])
    rows = details(http, headers)
    assert rows[model]["available"]
    assert {
        row["obstacle"] for name, row in rows.items() if row["alias_of"] is None and name not in {model, "agent"}
    } == {"not_allowed"}


def test_models_rest_while_all_accounts_do(http: TestClient, engine: Engine) -> None:
    _, headers = add_key("alice")
    engine.sql("UPDATE accounts SET rest_until = now() + interval '1 hour', rest_code = 'account_limited'")
    rows = details(http, headers)
    assert {row["obstacle"] for row in rows.values() if row["listed"] and row["id"] != "agent"} == {"resting"}


def test_sample_is_the_newest_own_result(http: TestClient, engine: Engine) -> None:
    (alice, headers), (_, others) = add_key("alice"), add_key("bob")
    [account] = engine.sql("SELECT id FROM accounts WHERE provider = 'dreamina'")
    older, newer = (engine.add_succeeded_job(account.id, owner=f"user:{alice}", user_id=alice) for _ in range(2))
    model = engine.job_row(newer).model
    sample = details(http, headers)[model]["sample"]
    assert sample["job"] == public_id("job", max(older, newer))
    assert http.get(sample["url"]).status_code == 200
    assert details(http, others)[model]["sample"] is None


def test_typical_time_is_learned_from_jobs_of_the_size(http: TestClient, engine: Engine) -> None:
    alice, headers = add_key("alice")
    model = get_catalog().default_image_model
    row = details(http, headers)[model]
    assert row["typical_seconds"] is None
    for _ in range(5):
        job_id = engine.add_job(owner=f"user:{alice}", user_id=alice, model=model)
        engine.sql(
            """UPDATE jobs SET state = 'succeeded', attempt = 1, submitted_at = now() - interval '12 seconds',
               finished_at = now(), params = jsonb_set(params, '{order,resolution}', CAST(:size AS jsonb))
               WHERE id = :id""",
            id=job_id,
            size=f'"{row["price"]["resolution"]}"',
        )
    durations.clear_cache()
    assert details(http, headers)[model]["typical_seconds"] == 12
