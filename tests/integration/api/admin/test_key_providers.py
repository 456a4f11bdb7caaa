"""Keys that may only use accounts of some providers: their jobs, their header `X-Accounts`, and keys made with them."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.support.api_client import assert_error
from tests.support.engine import Engine


@pytest.fixture
def http(engine: Engine) -> Iterator[TestClient]:
    with TestClient(create_app()) as client:  # its pool has a demo account of each provider
        client.headers["Authorization"] = f"Bearer {engine.env['DREAMERY_ADMIN_KEY']}"
        assert client.post("/admin/v1/users", json={"name": "anna", "role": "member"}).status_code == 201
        yield client


def make_key(http: TestClient, **fields: Any) -> dict[str, Any]:
    answer = http.post("/admin/v1/keys", json={"user": "anna", **fields})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def start(http: TestClient, key: str, model: str, **headers: str) -> Any:
    body = {"prompt": "a boat", "model": model, "async": True}
    return http.post("/v1/images/generations", json=body, headers={"Authorization": f"Bearer {key}", **headers})


def test_jobs_of_the_key_use_accounts_of_its_providers(engine: Engine, http: TestClient) -> None:
    made = make_key(http, providers=["ark"])
    assert made["providers"] == ["ark"]
    assert start(http, made["key"], "seedream-5.0-flash").status_code == 202
    assert start(http, made["key"], "jimeng-4.0").status_code >= 400
    [row] = engine.sql("SELECT providers FROM jobs")
    assert row.providers == ["ark"]
    listed = http.get("/v1/models", headers={"Authorization": f"Bearer {made['key']}"}).json()["data"]
    names = {one["id"] for one in listed}
    assert "seedream-5.0-flash" in names
    assert "jimeng-4.0" not in names


def test_header_cannot_widen_the_key(http: TestClient) -> None:
    key = make_key(http, providers=["ark"])["key"]
    assert start(http, key, "seedream-5.0-flash", **{"X-Accounts": "provider=ark"}).status_code == 202
    refused = start(http, key, "jimeng-4.0", **{"X-Accounts": "provider=dreamina"})
    assert "accounts of ark" in assert_error(refused, 403, "forbidden")


def test_key_makes_no_key_with_more_providers(http: TestClient) -> None:
    made = make_key(http, providers=["ark"])
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert http.post("/v1/keys", json={"name": "child"}, headers=headers).json()["providers"] == ["ark"]
    more = {"name": "child", "providers": ["dreamina"]}
    assert_error(http.post("/v1/keys", json=more, headers=headers), 403, "forbidden")
    rotated = http.post(f"/admin/v1/keys/{made['id']}/rotate").json()
    assert rotated["providers"] == ["ark"]


def test_unknown_provider_is_refused(http: TestClient) -> None:
    refused = http.post("/admin/v1/keys", json={"user": "anna", "providers": ["other"]})
    assert "dreamina, ark" in assert_error(refused, 400, "invalid_value", param="providers")
    assert make_key(http)["providers"] is None


def test_retry_stays_within_the_providers_of_the_key(http: TestClient) -> None:
    wide, narrow = make_key(http)["key"], make_key(http, providers=["ark"])["key"]
    job = start(http, wide, "jimeng-4.0").json()["id"]
    headers = {"Authorization": f"Bearer {wide}"}
    assert http.post(f"/v1/jobs/{job}/cancel", headers=headers).json()["status"] == "cancelled"
    refused = http.post(f"/v1/jobs/{job}/retry", json={}, headers={"Authorization": f"Bearer {narrow}"})
    assert refused.status_code in {400, 403, 404}, refused.text
    assert http.post(f"/v1/jobs/{job}/retry", json={"async": True}, headers=headers).status_code < 300
