"""With session tokens off, the refusal of a session id says so and names the setting."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from tests.support.api_client import assert_error
from tests.support.engine import Engine


@pytest.fixture
def http(engine: Engine) -> Iterator[TestClient]:
    engine.configure(SESSION_TOKENS="off")
    with TestClient(create_app()) as client:
        yield client


@pytest.mark.parametrize("token", ["1234567890abcdef", "us-1234567890abcdef", "demo:sandbox", "a,b", "socks5://h:1@x"])
def test_refused_session_id_names_the_setting(http: TestClient, token: str) -> None:
    answer = http.get("/v1/jobs", headers={"Authorization": f"Bearer {token}"})
    message = assert_error(answer, 401, "invalid_api_key")
    assert "Session tokens are off: set DREAMERY_SESSION_TOKENS=on (for docker compose in `.env`)" in message
    chinese = http.get("/v1/jobs", headers={"Authorization": f"Bearer {token}", "Accept-Language": "zh"})
    assert "DREAMERY_SESSION_TOKENS=on" in chinese.json()["error"]["message"]


def test_wrong_key_says_nothing_about_session_tokens(http: TestClient) -> None:
    answer = http.get("/v1/jobs", headers={"Authorization": "Bearer sk-dreamery-wrong"})
    assert "Session" not in assert_error(answer, 401, "invalid_api_key")
