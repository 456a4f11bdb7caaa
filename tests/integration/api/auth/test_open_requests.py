"""Streams and waits end soon after their caller lost the right to them, in every process."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from api.app import create_app
from api.auth import caller_checks
from tests.support.api_client import IMAGES, assert_error
from tests.support.engine import Engine
from tests.support.platform import eventually
from tests.support.servers.http_servers import running_app
from worker.core.ids import parse_public_id
from worker.db.engine import transaction
from worker.db.users import api_keys

CHAT = "/v1/chat/completions"
CHAT_BODY = {"model": "jimeng-4.0", "stream": True, "messages": [{"role": "user", "content": "a boat"}]}


class Member:
    """A member with a key, and the ways to take the key's rights away."""

    def __init__(self, url: str, admin_key: str, name: str) -> None:
        self.url, self.name = url, name
        self.admin = httpx.Client(base_url=url, headers=_bearer(admin_key), trust_env=False, timeout=60)
        assert self.admin.post("/admin/v1/users", json={"name": name}).status_code == 201
        made = self.admin.post("/admin/v1/keys", json={"user": name}).json()
        self.key, self.key_id = made["key"], made["id"]
        self.http = httpx.Client(base_url=url, headers=_bearer(self.key), trust_env=False, timeout=60)

    def start_job(self) -> str:
        return str(self.http.post(IMAGES, json={"prompt": "a boat", "async": True}).json()["id"])

    def close(self) -> None:
        self.http.close()
        self.admin.close()

    def revoke(self) -> None:
        assert self.admin.delete(f"/admin/v1/keys/{self.key_id}").status_code == 200

    def rotate(self) -> None:
        assert self.http.post(f"/v1/keys/{self.key_id}/rotate").status_code == 201

    def revoke_own_key(self) -> None:
        assert self.http.delete(f"/v1/keys/{self.key_id}").status_code == 200

    def disable(self) -> None:
        assert self.admin.patch(f"/admin/v1/users/{self.name}", json={"disabled": True}).status_code == 200

    def demote(self) -> None:
        assert self.admin.patch(f"/admin/v1/users/{self.name}", json={"role": "viewer"}).status_code == 200

    def revoke_silently(self) -> None:
        """Revoke in the database, as if the message was lost."""
        with transaction() as tx:
            [row] = [row for row in api_keys.list_keys(tx, user_id=None, after=None, limit=100)
                     if row.user_name == self.name]  # fmt: skip
            api_keys.revoke_key(tx, row.id)


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def member(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Member]:
    monkeypatch.setattr(caller_checks, "INTERVAL_SECONDS", 600.0)  # only messages end streams, unless a test changes it
    engine.add_account(pool=True)
    with running_app(create_app(), lifespan="on") as url:
        member = Member(url, engine.env["DREAMERY_ADMIN_KEY"], "anna")
        yield member
        member.close()


class OpenStream:
    """A stream that a thread reads to its end."""

    def __init__(self, client: httpx.Client, method: str, path: str, **more: Any) -> None:
        self.text = ""
        self.broken = False
        self._request = (method, path)
        self._thread = threading.Thread(target=self._read, args=(client,), kwargs=more, daemon=True)
        self._thread.start()
        eventually(lambda: self.text, what=f"the first event of {path}")

    def _read(self, client: httpx.Client, **more: Any) -> None:
        try:
            with client.stream(*self._request, **more) as response:
                for piece in response.iter_text():
                    self.text += piece
        except httpx.HTTPError:
            self.broken = True

    def wait_for_end(self) -> str:
        self._thread.join(20)
        assert not self._thread.is_alive(), "the stream is still open"
        assert not self.broken, self.text
        return self.text


def open_streams(member: Member) -> list[OpenStream]:
    job = member.start_job()
    return [
        OpenStream(member.http, "GET", "/v1/jobs/events"),
        OpenStream(member.http, "GET", f"/v1/jobs/{job}/events"),
        OpenStream(member.http, "POST", CHAT, json=CHAT_BODY),
        OpenStream(member.http, "POST", CHAT, json={**CHAT_BODY, "model": "agent"}),
        OpenStream(member.http, "POST", IMAGES, json={"prompt": "a boat", "stream": True}),
    ]


@pytest.mark.parametrize("end", [Member.revoke, Member.disable, Member.rotate, Member.revoke_own_key])
def test_streams_end_with_an_error_when_the_key_ends(member: Member, end: Callable[[Member], None]) -> None:
    streams = open_streams(member)
    end(member)
    for stream in streams:
        last = stream.wait_for_end().rstrip().rpartition("\n\n")[2]
        assert "event: error\n" in last, last
        assert '"code":"invalid_api_key"' in last
        assert "no longer valid" in last


def test_streams_end_when_the_role_changes(member: Member) -> None:
    stream = OpenStream(member.http, "GET", "/v1/jobs/events")
    member.demote()
    assert "permissions of this API key have changed" in stream.wait_for_end()


@pytest.mark.parametrize(("right", "left"), [("scopes", ["read"]), ("models", ["jimeng-4.0"])])
def test_streams_end_when_the_key_has_fewer_rights(member: Member, right: str, left: list[str]) -> None:
    stream = OpenStream(member.http, "GET", "/v1/jobs/events")
    with transaction() as tx:
        values = {"left": left, "id": parse_public_id("key", member.key_id)}
        tx.run(text(f"UPDATE api_keys SET {right} = :left WHERE id = :id"), values)
    member.admin.patch("/admin/v1/users/anna", json={"priority": 0})  # sends the message
    assert "permissions of this API key have changed" in stream.wait_for_end()


def test_streams_of_others_continue(member: Member) -> None:
    other = Member(member.url, member.admin.headers["authorization"].partition(" ")[2], "ben")
    theirs = OpenStream(other.http, "GET", "/v1/jobs/events")
    mine = OpenStream(member.http, "GET", "/v1/jobs/events")
    member.revoke()
    mine.wait_for_end()
    job = other.start_job()
    eventually(lambda: job in theirs.text, what="the job of the other user")
    other.disable()
    theirs.wait_for_end()
    other.close()


def test_waits_answer_401(member: Member) -> None:
    answers: dict[str, httpx.Response] = {}
    job = member.start_job()

    def wait(name: str, send: Callable[[], httpx.Response]) -> threading.Thread:
        thread = threading.Thread(target=lambda: answers.__setitem__(name, send()), daemon=True)
        thread.start()
        return thread

    threads = [
        wait("job", lambda: member.http.get(f"/v1/jobs/{job}", params={"wait": 60})),
        wait("image", lambda: member.http.post(IMAGES, json={"prompt": "a boat", "n": 1})),
    ]

    def accepted() -> bool:
        return len(member.admin.get("/admin/v1/jobs").json()["data"]) == 2

    eventually(accepted, what="both requests wait")
    member.revoke()
    for thread in threads:
        thread.join(20)
    assert_error(answers["job"], 401, "invalid_api_key")
    assert_error(answers["image"], 401, "invalid_api_key")
    assert answers["image"].headers["x-job-id"], "the job was accepted and continues"
    assert answers["image"].headers["x-should-retry"] == "false"


def test_without_a_message_the_regular_check_ends_streams(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = OpenStream(member.http, "GET", "/v1/jobs/events")
    member.revoke_silently()
    monkeypatch.setattr(caller_checks, "INTERVAL_SECONDS", 0.2)
    member.admin.patch("/admin/v1/users/anna", json={"priority": 0})  # wakes the loop, which reads the interval again
    assert "no longer valid" in stream.wait_for_end()


def test_stream_of_a_console_session_ends_with_it(member: Member) -> None:
    with httpx.Client(base_url=member.url, trust_env=False, timeout=60) as browser:
        token = browser.post("/console/session", headers=_bearer(member.key)).json()["csrf_token"]
        stream = OpenStream(browser, "GET", "/v1/jobs/events")
        other = OpenStream(member.http, "GET", "/v1/jobs/events")
        assert browser.delete("/console/session", headers={"X-CSRF-Token": token}).status_code == 200
        assert "console session has ended" in stream.wait_for_end()
        job = member.start_job()
        eventually(lambda: job in other.text, what="the key itself still works")
        member.revoke()
        other.wait_for_end()


def test_stream_shows_no_job_after_its_end(member: Member) -> None:
    stream = OpenStream(member.http, "GET", "/v1/jobs/events")
    other = member.admin.post("/admin/v1/keys", json={"user": "anna"}).json()["key"]
    member.revoke()
    text = stream.wait_for_end()
    later = httpx.post(f"{member.url}{IMAGES}", json={"prompt": "late", "async": True}, headers=_bearer(other),
                       trust_env=False, timeout=60).json()["id"]  # fmt: skip
    assert later not in text
    assert later not in stream.text
