"""Users with keys and results, in one process with the application. Jobs run against the sandbox before the test begins."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.integration.conftest import ADMIN_KEY
from tests.support.engine import Engine
from worker.core.ids import parse_public_id, public_id


@dataclass
class Person:
    """A user with a key, as tests call the API."""

    id: str
    name: str
    key: str
    app: TestClient
    engine: Engine

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> httpx.Response:
        """Send a request with the key of the user."""
        return self.app.request(method, path, json=body, params=query, headers={"Authorization": f"Bearer {self.key}"})

    def make_files(self, count: int = 1, *, kind: str = "image") -> list[str]:
        """Run a job of the user to its end and return the ids of its results."""
        user_id = parse_public_id("user", self.id)
        job = self.engine.add_succeeded_job(
            self.engine.add_account(pool=True), user_id=user_id, owner=f"user:{user_id}", kind=kind, count=count
        )
        rows = self.engine.files(job)
        return [public_id("file", row.id) for row in rows if row.variant == "original"]

    def album(self, *files: str, name: str = "Boats", **fields: Any) -> str:
        """Create an album with these files."""
        album_id = str(self.call("POST", "/v1/albums", {"name": name, **fields}).json()["id"])
        if files:
            assert self.call("POST", f"/v1/albums/{album_id}/files", {"files": list(files)}).status_code == 200
        return album_id

    def items(self, album: str) -> list[dict[str, Any]]:
        """Return the files of an album as the user sees them."""
        answer = self.call("GET", f"/v1/albums/{album}/files")
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"])

    def invite(self, album: str, other: "Person", role: str = "viewer") -> None:
        """Share an album with another user."""
        answer = self.call("POST", f"/v1/albums/{album}/members", {"user": other.name, "role": role})
        assert answer.status_code == 200, answer.text


@pytest.fixture
def app(engine: Engine) -> Iterator[TestClient]:
    """The application, without a key."""
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def add_person(app: TestClient, engine: Engine) -> Callable[..., Person]:
    """Add a user with a key."""

    def add(name: str, *, role: str = "member", **fields: Any) -> Person:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        user = app.post("/admin/v1/users", json={"name": name, "role": role}, headers=headers).json()
        key = app.post("/admin/v1/keys", json={"user": name, **fields}, headers=headers).json()["key"]
        return Person(id=user["id"], name=name, key=key, app=app, engine=engine)

    return add


@pytest.fixture
def owner(add_person: Callable[..., Person]) -> Person:
    """The user whose albums the test is about."""
    return add_person("olivia")


def uuid_of(file: str) -> UUID:
    """Return the id of a file as its row has it."""
    found = parse_public_id("file", file)
    assert found is not None
    return found
