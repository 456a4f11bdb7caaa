"""What tests of the HTTP surface share: a client of a running platform, fresh sessions, and the shape of errors."""

import hashlib
import json
import random
from collections.abc import Iterator
from typing import Any, Self

import httpx

from tests.support.crash.secret_leaks import SESSIONS
from tests.support.platform import eventually
from worker.local.supervisor import Platform

IMAGES = "/v1/images/generations"
FINAL = {"completed", "failed", "cancelled"}


def new_session(words: str = "face") -> str:
    """A session id nobody has used, with words that script the account. Digits only: hex may spell `dead`."""
    session = f"{words}{random.SystemRandom().randrange(10**18)}"
    SESSIONS.add(session)
    return session


def new_key(words: str = "face") -> str:
    """A caller nobody has met: a fresh session id of the sandbox."""
    return f"{new_session(words)}:sandbox"


def error_of(response: Any, status: int, code: str, param: str | None = None) -> str:
    """Check that an answer is that error in OpenAI's shape; its message."""
    assert response.status_code == status, (response.status_code, response.text)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    body = response.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert isinstance(error["type"], str)
    assert error["message"]
    assert int(response.headers.get("retry-after", 1)) in range(1, 61)
    return str(error["message"])


def not_repeatable(response: Any) -> bool:
    """Whether SDKs are told not to repeat: so on each error after a job was accepted, and only there."""
    told = response.headers.get("x-should-retry")
    assert told in {None, "false"}
    return told == "false"


class Face:
    """A caller of a running platform."""

    def __init__(self, platform: Platform, key: str | None = None) -> None:
        self.platform = platform
        self.key = key or new_key()
        self.http = httpx.Client(
            base_url=platform.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.http.close()

    def as_caller(self, key: str) -> "Face":
        """The same platform, another caller."""
        return Face(self.platform, key)

    def draw(self, prompt: str = "a boat", *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        """Ask for pictures."""
        return self.http.post(IMAGES, json={"prompt": prompt, **fields}, headers=headers)

    def start(self, prompt: str = "a boat", **fields: Any) -> dict[str, Any]:
        """Ask for pictures without waiting; the job."""
        response = self.draw(prompt, **{"n": 1, "async": True, **fields})
        assert response.status_code == 202, response.text
        return response.json()

    def job(self, job_id: str, **query: Any) -> dict[str, Any]:
        """A job as it is now."""
        response = self.http.get(f"/v1/jobs/{job_id}", params=query)
        assert response.status_code == 200, response.text
        assert response.headers["x-job-id"] == job_id
        return response.json()

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a job."""
        response = self.http.post(f"/v1/jobs/{job_id}/cancel")
        assert response.status_code == 200, response.text
        return response.json()

    def ended(self, job_id: str) -> dict[str, Any]:
        """The job once it has ended."""
        job = self.job(job_id, wait=30)
        assert job["status"] in FINAL, job
        return job

    def becomes(self, job_id: str, status: str) -> dict[str, Any]:
        """The job once it has that status."""
        eventually(lambda: self.job(job_id)["status"] == status, what=f"{job_id} {status}")
        return self.job(job_id)

    def submits(self) -> list[dict[str, Any]]:
        """What the sandbox has got from this caller's account."""
        name = account_name(self.key)
        ledger = httpx.get(f"{self.platform.sandbox_url}/_ledger", trust_env=False).json()
        return [line for line in ledger["submits"] if line["account"] == name]


def account_name(key: str) -> str:
    """How the sandbox's books call the account of a session token."""
    return hashlib.sha256(key.partition(":")[0].encode()).hexdigest()[:12]


def read_events(lines: Iterator[str]) -> Iterator[tuple[str, int | None, dict[str, Any]]]:
    """Frames of an event stream: name, id, data. Comments are skipped."""
    name, number, data = "", None, ""
    for line in lines:
        field, _, value = line.partition(": ")
        if line.startswith(":"):
            continue
        if not line:
            yield name, number, json.loads(data)
            name, number, data = "", None, ""
        elif field == "event":
            name = value
        elif field == "id":
            number = int(value)
        elif field == "data":
            data = value
