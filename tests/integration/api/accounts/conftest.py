"""An administrator of an app without accounts, users of it, and the worker that answers account checks."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.support.engine import Engine


@pytest.fixture
def http(engine: Engine) -> Iterator[TestClient]:
    """A client with the admin key."""
    with TestClient(create_app()) as client:
        engine.sql("DELETE FROM accounts")  # the demo accounts of the pool
        client.headers["Authorization"] = f"Bearer {engine.env['DREAMERY_ADMIN_KEY']}"
        yield client


@pytest.fixture
def member(http: TestClient) -> Callable[..., dict[str, str]]:
    """Add a user of this name; return the headers of its key."""

    def add(name: str, **fields: Any) -> dict[str, str]:
        answer = http.post("/admin/v1/users", json={"name": name, "role": "member", **fields})
        assert answer.status_code == 201, answer.text
        return {"Authorization": f"Bearer {http.post('/admin/v1/keys', json={'user': name}).json()['key']}"}

    return add


@pytest.fixture
def anna(member: Callable[..., dict[str, str]]) -> dict[str, str]:
    """The headers of a user."""
    return member("anna")


@pytest.fixture
def worker(engine: Engine) -> Iterator[Callable[..., None]]:
    """Execute check tasks as they are enqueued; returns a function that stops the worker."""
    stop = threading.Event()

    def execute_checks() -> None:
        while not stop.wait(0.02):
            for message in engine.take_messages("dreamery.check"):
                message.execute()

    thread = threading.Thread(target=execute_checks)
    thread.start()
    yield stop.set
    stop.set()
    thread.join(20)
