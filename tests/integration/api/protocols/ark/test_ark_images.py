"""`POST /api/v3/images/generations` on a running platform with accounts of the web upstream."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.api_client import ApiClient
from tests.support.uploads import make_image

PATH = "/api/v3/images/generations"


@pytest.fixture
def client(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform) as client:
        yield client


def generate(client: ApiClient, prompt: str = "a boat", headers: dict[str, str] | None = None, **fields: Any):
    body = {"model": "jimeng-4.0", "prompt": prompt, "watermark": False, **fields}
    return client.http.post(PATH, json=body, headers=headers)


def error_of(response: httpx.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    assert set(error) == {"code", "message", "param", "type"}
    assert error["message"].endswith(f"Request id: {response.headers['x-request-id']}")
    return response.status_code, error["code"], error["param"]


def test_answer_has_the_vendors_shape(client):
    response = generate(client, size="2048x2048")
    assert response.status_code == 200, response.text
    body = response.json()
    assert set(body) == {"model", "created", "created_at", "data", "usage"}
    assert body["model"] == "jimeng-4.0"
    (image,) = body["data"]
    assert set(image) == {"url", "size", "output_format"}
    assert image["size"] == "2048x2048"
    assert body["usage"] == {"generated_images": 1, "output_tokens": 16384, "total_tokens": 16384}
    content = httpx.get(image["url"], trust_env=False)
    assert content.headers["content-type"] == f"image/{image['output_format']}"
    job = client.job(response.headers["x-job-id"])
    assert job["status"] == "completed"


def test_base64_and_a_reference(client):
    reference = "data:image/png;base64," + base64.b64encode(make_image(side=640)).decode()
    body = generate(client, image=reference, response_format="b64_json", size="2K").json()
    (image,) = body["data"]
    with Image.open(io.BytesIO(base64.b64decode(image["b64_json"]))) as picture:
        assert f"{picture.width}x{picture.height}" == image["size"]
    assert body["usage"]["input_images"] == 1


def test_set_of_a_model_without_sets_is_so_many_images(client):
    options = {"max_images": 3}
    body = generate(
        client, sequential_image_generation="auto", sequential_image_generation_options=options, size="1024x1024"
    ).json()
    assert len({image["url"] for image in body["data"]}) == 3
    assert body["usage"]["generated_images"] == 3


def test_stream_has_an_event_for_each_image(client):
    options = {"sequential_image_generation": "auto", "sequential_image_generation_options": {"max_images": 2}}
    response = generate(client, stream=True, **options)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-job-id"]
    *events, done = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    assert done == "[DONE]"
    first, second, last = map(json.loads, events)
    assert [event["image_index"] for event in (first, second)] == [0, 1]
    assert first["type"] == "image_generation.partial_succeeded"
    assert httpx.get(second["url"], trust_env=False).status_code == 200
    assert (last["type"], last["usage"]["generated_images"]) == ("image_generation.completed", 2)


def test_stream_that_fails_ends_with_the_vendors_error(client):
    response = generate(client, "[[fail:2038]] x", stream=True)
    assert response.status_code == 200
    *_, event, done = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    assert done == "[DONE]"
    assert json.loads(event)["error"]["code"] == "SensitiveContentDetected"


def test_watermark_is_never_made_and_that_is_reported(client):
    response = generate(client, watermark=True)
    assert response.json()["adjusted"] == {"watermark": "true"}
    assert client.job(response.headers["x-job-id"])["input"]["adjusted"] == {"watermark": "true"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt": None}, (400, "MissingParameter.prompt", "prompt")),
        ({"model": "no-such-model"}, (404, "InvalidEndpointOrModel.NotFound", "model")),
        ({"size": "huge"}, (400, "InvalidParameter", "size")),
        ({"n": 2}, (400, "InvalidParameter.UnsupportedParameter", "n")),
        ({"layer_decomposition": True}, (400, "InvalidParameter.UnsupportedParameter", "layer_decomposition")),
        ({"tools": [{"type": "web_search"}]}, (400, "InvalidParameter.UnsupportedParameter", "tools")),
        ({"image": "data:image/png;base64,AAAA"}, (400, "InvalidImageURL.InvalidFormat", "image")),
    ],
)
def test_errors_have_the_vendors_shape(client, fields, expected):
    assert error_of(generate(client, **fields)) == expected


def test_errors_of_other_layers_have_it_too(client):
    wrong = {"Authorization": "Bearer sk-dreamery-wrong"}
    answer = generate(client, headers=wrong)
    assert error_of(answer) == (401, "AuthenticationError", "")
    assert answer.headers["x-error-code"] == "AuthenticationError"
    assert error_of(client.http.post(PATH, content=b"{"))[:2] == (400, "InvalidParameter")
    assert error_of(client.http.get(PATH))[:2] == (405, "InvalidAction")
    assert error_of(client.http.get("/api/v3/nothing"))[:2] == (404, "NotFound")
    assert error_of(generate(client, "[[fail:2038]] x"))[:2] == (400, "SensitiveContentDetected")


def test_idempotency_key_returns_the_same_job(client):
    key = {"Idempotency-Key": "a key"}
    first, second = generate(client, headers=key), generate(client, headers=key)
    assert first.headers["x-job-id"] == second.headers["x-job-id"]
    assert second.headers["idempotency-replayed"] == "true"


def test_repeat_of_a_call_whose_answer_was_lost_joins_its_job(client):
    with pytest.raises(httpx.ReadTimeout):
        client.http.post(PATH, json={"model": "jimeng-4.0", "prompt": "[[seconds:3]] lost"}, timeout=1)
    answer = generate(client, "[[seconds:3]] lost")  # the same prompt, but `watermark` makes it another body
    assert answer.status_code == 200
    assert len(client.submits()) == 1
