"""Requests of front ends as they arrive (`tests/fixtures/clients/requests.json`), replayed against a running platform."""

import io
import json
from typing import Any

import pytest
from PIL import Image

from tests.support.api_client import ApiClient
from tests.support.platform import ROOT

RECORDED = json.loads((ROOT / "tests/fixtures/clients/requests.json").read_text(encoding="utf-8"))


def photo() -> bytes:
    """Return a small image, as a person attaches it."""
    content = io.BytesIO()
    Image.new("RGB", (640, 480), (30, 90, 160)).save(content, "PNG")
    return content.getvalue()


def send(client: ApiClient, recorded: dict[str, Any]) -> Any:
    """Send the recorded request with this client's key."""
    if "json" in recorded:
        return client.http.post(recorded["path"], json=recorded["json"])
    # Without a file, SDKs send a form with the fields as parts.
    fields = [(name, (None, value.encode())) for name, value in recorded["form"].items()]
    files = [(name, (filename, photo(), mime)) for name, filename, mime in recorded.get("files", [])]
    return client.http.post(recorded["path"], files=[*fields, *files])


def stream_text(response: Any) -> str:
    """Return the content of a chat stream; asserts its end marks."""
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    choices = [choice for line in lines[:-1] for choice in json.loads(line)["choices"]]
    assert choices[-1]["finish_reason"] == "stop"
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@pytest.mark.parametrize("recorded", RECORDED, ids=[entry["client"] for entry in RECORDED])
def test_recorded_request_gets_what_its_user_expects(api_platform: Any, recorded: dict[str, Any]) -> None:
    expected = recorded["expect"]
    with ApiClient(api_platform) as client:
        response = send(client, recorded)
        assert response.status_code == 200, response.text
        if expected["kind"] == "images":
            entries = response.json()["data"]
            assert len(entries) == expected["count"]
            assert all(entry.get(expected["form"]) for entry in entries)
        elif expected["kind"] == "video":
            video = response.json()
            assert video["status"] in {"queued", "in_progress"}
            assert video["error"] is None
            client.wait_for_end(video["id"].replace("video_", "job_"))
        else:
            text = (
                stream_text(response)
                if expected["kind"] == "stream"
                else response.json()["choices"][0]["message"]["content"]
            )
            assert text
            assert ("![" in text) is expected["images"]
        jobs = client.http.get("/v1/jobs").json()["data"]
        assert bool(jobs) is (expected["kind"] in {"images", "video"} or bool(expected.get("images")))
        if references := expected.get("references"):
            assert sum(len(job["input"]["images"]) for job in jobs[:1]) == references
