"""Image requests with `stream: true` on a running platform: the bytes and events of the stream."""

import base64
import io
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.api_client import IMAGES, ApiClient, assert_error, new_key, read_events
from tests.support.uploads import make_image

EDITS = "/v1/images/edits"
RED = make_image("red")
REQUIRED = {"type", "b64_json", "background", "created_at", "output_format", "quality", "size", "usage"}


@pytest.fixture
def client(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform) as client:
        yield client


def stream(
    client: ApiClient, path: str = IMAGES, **fields: Any
) -> tuple[httpx.Response, list[tuple[str, dict[str, Any]]]]:
    """Return the complete response and its events."""
    body = {"prompt": "a boat", "n": 1, "stream": True, "size": "512x512", **fields}
    response = client.http.post(path, json=body)
    if response.status_code != 200:
        return response, []
    return response, [(name, data) for name, _id, data in read_events(iter(response.text.splitlines()))]


def size_of(data: dict[str, Any]) -> tuple[str, tuple[int, int]]:
    with Image.open(io.BytesIO(base64.b64decode(data["b64_json"], validate=True))) as drawn:
        return (drawn.format or "").lower(), drawn.size


def test_each_image_is_one_event_with_all_required_fields(client):
    response, events = stream(client, n=10, partial_images=2, user="ann", response_format="url")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert not {"content-length", "content-encoding"} & set(response.headers)
    assert response.headers["x-job-id"].startswith("job_")
    assert [name for name, _ in events] == ["image_generation.completed"] * 10
    for name, data in events:
        assert set(data) == REQUIRED | {"safety_identifier"}
        assert data["type"] == name
        assert (data["background"], data["quality"], data["size"]) == ("auto", "auto", "1328x1328")
        assert size_of(data) == (data["output_format"], (1328, 1328))
        assert isinstance(data["created_at"], int)
        assert data["usage"]["input_tokens_details"] == {"image_tokens": 0, "text_tokens": 0}
    assert len({data["b64_json"] for _, data in events}) == 10


def test_stream_has_nothing_that_breaks_the_sdks(client):
    response, _ = stream(client, n=2)
    assert response.text.startswith(": ka\n")
    for line in response.text.split("\n"):
        assert not line.startswith(("id:", "retry:"))
        assert line.rstrip() != "data:"
    for block in response.text.split("\n\n")[:-1]:
        assert "data: " in block, "a comment is never followed by a blank line"


def test_requested_fields_are_applied_and_echoed(client):
    _, [(name, data)] = stream(client, quality="low", background="opaque", output_format="webp", size="auto")
    assert name == "image_generation.completed"
    assert (data["quality"], data["background"], data["output_format"]) == ("low", "opaque", "webp")
    assert size_of(data) == ("webp", (1328, 1328))


def test_edit_events_have_their_own_names(client):
    _, events = stream(client, EDITS, image=base64.b64encode(RED).decode(), n=2)
    assert [name for name, _ in events] == ["image_edit.completed"] * 2
    files = [("image[]", ("upload", RED, "application/octet-stream")), ("image[]", ("blob", RED, ""))]
    form = {"prompt": "a boat", "n": "1", "stream": "true", "input_fidelity": "high", "output_format": "png"}
    response = client.http.post(EDITS, data=form, files=files)
    [(name, _, data)] = read_events(iter(response.text.splitlines()))
    assert (name, data["output_format"]) == ("image_edit.completed", "png")
    assert len(client.job(response.headers["x-job-id"])["input"]["images"]) == 2


def test_image_is_sent_as_soon_as_its_job_ends(client):
    """The second job takes the scripted seconds; the first result is sent before."""
    body = {"prompt": "a boat [[seconds:2]]", "n": 9, "stream": True}
    came, started = [], time.monotonic()
    with client.as_caller(new_key()) as other, other.http.stream("POST", IMAGES, json=body) as response:
        for name, _, _data in read_events(response.iter_lines()):
            came.append((name, time.monotonic() - started))
    assert len(came) == 9
    assert all(name == "image_generation.completed" for name, _ in came)
    assert came[0][1] >= 1.5


def test_invalid_request_is_rejected_before_the_stream(client):
    for fields, status, code, param in [
        ({"size": "huge"}, 400, "invalid_value", "size"),
        ({"model": "gpt-9"}, 404, "model_not_found", "model"),
        ({"background": "transparent"}, 400, "unsupported_parameter", "background"),
    ]:
        assert_error(stream(client, **fields)[0], status, code, param)
    assert_error(
        httpx.post(f"{client.platform.url}{IMAGES}", json={"stream": True}, trust_env=False), 401, "missing_api_key"
    )


def test_failed_job_is_an_error_event(client):
    response, events = stream(client, prompt="[[fail:2005]]")
    assert response.status_code == 200
    [(name, data)] = events
    assert (name, data["type"]) == ("error", "error")
    assert set(data["error"]) == {"message", "type", "param", "code"}
    assert data["error"]["code"] == "content_policy_violation"
    assert len(client.submits()) == 1


def test_partial_results_are_not_an_error(client):
    _, events = stream(client, prompt="a boat [[partial:2]]", n=4)
    assert [name for name, _ in events] == ["image_generation.completed"] * 2


def test_heartbeats_are_sent_while_waiting(client):
    response, events = stream(client, prompt="a boat [[seconds:3]]")
    assert [name for name, _ in events] == ["image_generation.completed"]
    assert response.text.count(": ka\n") >= 2


def test_stream_is_replayed(client):
    body = {"prompt": "a boat", "n": 2, "stream": True}
    first, again = (client.http.post(IMAGES, json=body, headers={"Idempotency-Key": "s-1"}) for _ in range(2))
    assert again.headers["idempotency-replayed"] == "true"
    pictures = [
        [data["b64_json"] for _, _, data in read_events(iter(response.text.splitlines()))]
        for response in (first, again)
    ]
    assert pictures[0] == pictures[1]
    assert len(client.submits()) == 1


def test_respond_async_overrides_stream(client):
    response = client.generate_images(stream=True, n=1, **{"async": True})
    assert response.status_code == 202
    assert response.json()["object"] == "job"


def test_disconnect_does_not_cancel_the_job(client):
    body = {"prompt": "a boat [[seconds:1]]", "n": 1, "stream": True}
    with client.http.stream("POST", IMAGES, json=body) as response:
        job = response.headers["x-job-id"]
    assert client.wait_for_end(job)["status"] == "completed"
