"""A client with the admin key of an app whose pool has demo accounts, and helpers for batches."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.support.engine import Engine
from worker.db.engine import transaction
from worker.tasks.dispatch import sweep, tick

IMAGES = "/v1/images/generations"
ENDED = {"completed", "failed", "expired", "cancelled"}


@pytest.fixture
def http(engine: Engine, request: pytest.FixtureRequest) -> Iterator[TestClient]:
    """The client. `@pytest.mark.parametrize("http", [{"NAME": "value"}], indirect=True)` sets settings before it starts."""
    engine.configure(**getattr(request, "param", {}))
    with TestClient(create_app()) as client:
        client.headers["Authorization"] = f"Bearer {engine.env['DREAMERY_ADMIN_KEY']}"
        yield client


@pytest.fixture
def add_key(http: TestClient) -> Callable[..., dict[str, str]]:
    """Make a key, by default of the new user `anna`; return the headers that use it."""
    assert http.post("/admin/v1/users", json={"name": "anna", "role": "member"}).status_code == 201

    def add(user: str = "anna", **fields: Any) -> dict[str, str]:
        answer = http.post("/admin/v1/keys", json={"user": user, **fields})
        assert answer.status_code == 201, answer.text
        return {"Authorization": f"Bearer {answer.json()['key']}"}

    return add


def jsonl(*bodies: Any, url: str = IMAGES) -> bytes:
    """The file of requests with these bodies; their ids are `line-1` and so on."""
    lines = [{"custom_id": f"line-{n}", "method": "POST", "url": url, "body": body} for n, body in enumerate(bodies, 1)]
    return "\n".join(map(json.dumps, lines)).encode()


def pictures(count: int) -> bytes:
    return jsonl(*({"prompt": f"boat {n}", "n": 1} for n in range(count)))


def upload(http: TestClient, content: bytes, name: str = "requests.jsonl", **headers: str) -> str:
    answer = http.post("/v1/files", data={"purpose": "batch"}, files={"file": (name, content)}, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def make_batch(
    http: TestClient, content: bytes, headers: dict[str, str] | None = None, **fields: Any
) -> dict[str, Any]:
    """Upload a file, make a batch of it, and return it once it is checked."""
    file = upload(http, content, **(headers or {}))
    answer = http.post("/v1/batches", json={"input_file_id": file, **fields}, headers=headers)
    assert answer.status_code == 200, answer.text
    return wait_for(http, answer.json()["id"], lambda batch: batch["status"] != "validating", headers)


def wait_for(
    http: TestClient, batch_id: str, until: Callable[[dict[str, Any]], bool], headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """Read the batch until the condition holds."""
    end = time.monotonic() + 30
    while True:
        batch: dict[str, Any] = http.get(f"/v1/batches/{batch_id}", headers=headers).json()
        if until(batch):
            return batch
        assert time.monotonic() < end, batch
        time.sleep(0.05)


def run_batch(engine: Engine, http: TestClient, batch_id: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """Act as scheduler and worker until the batch has ended."""
    for _ in range(20):
        tick()
        sweep()
        engine.run_until_final(*(row.id for row in engine.sql("SELECT id FROM jobs WHERE state <> 'held'")))
        if not engine.sql("SELECT 1 FROM jobs WHERE state NOT IN ('succeeded', 'failed', 'cancelled')"):
            break
    return wait_for(http, batch_id, lambda batch: batch["status"] in ENDED, headers)


def states(engine: Engine) -> list[str]:
    return [row.state for row in engine.sql("SELECT state FROM jobs ORDER BY due_at, id")]


def set_database(statement: str) -> None:
    """Change the schema of the test database, for example with a trigger that fails a statement."""
    from sqlalchemy import text

    with transaction() as tx:
        tx.run(text(statement))
