"""Limits in bodies: a limit at the wrong place, or with a wrong value, is named as it was sent."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.admin.schemas import ApiKeyCreate, UserCreate
from api.http.errors import install_error_handlers


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    install_error_handlers(app)

    @app.post("/key")
    def key(body: ApiKeyCreate) -> dict[str, Any]:
        return body.model_dump(exclude_unset=True)

    @app.post("/user")
    def user(body: UserCreate) -> dict[str, Any]:
        return body.model_dump(exclude_unset=True)

    return TestClient(app)


@pytest.mark.parametrize("path", ["/key", "/user"])
@pytest.mark.parametrize("name", ["max_cost", "usd_per_day", "jobs_per_day", "requests_per_minute"])
def test_a_limit_beside_limits_is_refused(client: TestClient, path: str, name: str) -> None:
    answer = client.post(path, json={"user": "ann", "name": "laptop", name: 1})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", name)
    assert f'{{"limits": {{"{name}": ...}}}}' in error["message"]
    right = {"user": "ann", "name": "laptop", "limits": {name: 1}, "limit_of_another_tool": 1}
    assert client.post(path, json=right).json()["limits"] == {name: 1}


@pytest.mark.parametrize("value", ["0.1 USD", -1, "x"])
def test_errors_name_the_limit_alone(client: TestClient, value: object) -> None:
    answer = client.post("/key", json={"user": "ann", "limits": {"usd_per_day": value}})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "limits.usd_per_day")
    assert error["message"].startswith("Invalid value for 'limits.usd_per_day': ")
