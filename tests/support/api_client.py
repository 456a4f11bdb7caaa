"""Helpers for tests of the HTTP API: a client of a running platform, fresh session ids, checks of error responses."""

import hashlib
import json
import random
from collections.abc import Iterator
from typing import Any, Self

import httpx

from tests.support.crash.secret_leaks import SESSIONS
from tests.support.platform import eventually
from tests.support.sandbox_client import read_ledger
from worker.local.supervisor import Platform

IMAGES = "/v1/images/generations"
FINAL = {"completed", "failed", "cancelled"}


def new_session(words: str = "caller") -> str:
    """Return an unused session id; `words` script the account in the sandbox. Digits only, as hex may spell `dead`."""
    session = f"{words}{random.SystemRandom().randrange(10**18)}"
    SESSIONS.add(session)
    return session


def new_key(words: str = "caller") -> str:
    """Return an unused sandbox session token."""
    return f"{new_session(words)}:sandbox"


def assert_error(response: Any, status: int, code: str, param: str | None = None) -> str:
    """Assert that the response is that error in OpenAI's format. Returns its message."""
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


def forbids_retry(response: Any) -> bool:
    """Return whether SDKs must not retry. Only errors after a job was accepted say so."""
    header = response.headers.get("x-should-retry")
    assert header in {None, "false"}
    return header == "false"


class ApiClient:
    """An HTTP client of a running platform with one API key or session token."""

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

    def as_caller(self, key: str) -> "ApiClient":
        """Return a client of the same platform with another key."""
        return ApiClient(self.platform, key)

    def generate_images(
        self, prompt: str = "a boat", *, headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        """Send an image request and return the response."""
        return self.http.post(IMAGES, json={"prompt": prompt, **fields}, headers=headers)

    def start_job(self, prompt: str = "a boat", **fields: Any) -> dict[str, Any]:
        """Start an asynchronous image job and return it."""
        response = self.generate_images(prompt, **{"n": 1, "async": True, **fields})
        assert response.status_code == 202, response.text
        return response.json()

    def job(self, job_id: str, **query: Any) -> dict[str, Any]:
        """Return the current job."""
        response = self.http.get(f"/v1/jobs/{job_id}", params=query)
        assert response.status_code == 200, response.text
        assert response.headers["x-job-id"] == job_id
        return response.json()

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a job and return it."""
        response = self.http.post(f"/v1/jobs/{job_id}/cancel")
        assert response.status_code == 200, response.text
        return response.json()

    def wait_for_end(self, job_id: str) -> dict[str, Any]:
        """Wait until the job has a final status and return it."""
        job = self.job(job_id, wait=30)
        assert job["status"] in FINAL, job
        return job

    def wait_for_status(self, job_id: str, status: str) -> dict[str, Any]:
        """Wait until the job has that status and return it."""
        eventually(lambda: self.job(job_id)["status"] == status, what=f"{job_id} {status}")
        return self.job(job_id)

    def submits(self) -> list[dict[str, Any]]:
        """Return the submits that the sandbox received from this client's account."""
        name = account_name(self.key)
        ledger = read_ledger(self.platform)
        return [line for line in ledger["submits"] if line["account"] == name]


def account_name(key: str) -> str:
    """Return the account name in the sandbox's ledger for a session token."""
    return hashlib.sha256(key.partition(":")[0].encode()).hexdigest()[:12]


def read_events(lines: Iterator[str]) -> Iterator[tuple[str, int | None, dict[str, Any]]]:
    """Parse an event stream into (name, id, data). Skips comments."""
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
