"""`/api/v3/contents/generations/tasks` on a running platform with accounts of the web upstream."""

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.api.protocols.ark.test_ark_images import error_of
from tests.support.api_client import ApiClient
from tests.support.platform import eventually
from tests.support.uploads import make_image

TASKS = "/api/v3/contents/generations/tasks"
MODEL = "jimeng-video-3.0"


@pytest.fixture
def client(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform) as client:
        yield client


def create(client: ApiClient, prompt: str = "waves", **fields: Any) -> httpx.Response:
    content = [{"type": "text", "text": prompt}]
    return client.http.post(TASKS, json={"model": MODEL, "content": content, "watermark": False, **fields})


def created(client: ApiClient, prompt: str = "waves", **fields: Any) -> str:
    response = create(client, prompt, **fields)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def task(client: ApiClient, name: str) -> dict[str, Any]:
    response = client.http.get(f"{TASKS}/{name}")
    assert response.status_code == 200, response.text
    return dict(response.json())


def finished(client: ApiClient, name: str) -> dict[str, Any]:
    eventually(lambda: task(client, name)["status"] not in {"queued", "running"}, what=f"{name} has ended")
    return task(client, name)


def test_task_from_its_creation_to_its_file(client):
    response = create(client, ratio="9:16", duration=5, resolution="720p", safety_identifier="u1")
    name = response.json()["id"]
    assert response.json() == {"id": name, "safety_identifier": "u1"}
    assert name.removeprefix("cgt-") == response.headers["x-job-id"].removeprefix("job_")
    found = finished(client, name)
    assert (found["status"], found["model"], found["safety_identifier"]) == ("succeeded", MODEL, "u1")
    assert (found["ratio"], found["resolution"], found["duration"]) == ("9:16", "720p", 5)
    assert found["usage"]["completion_tokens"] == 720 * 1280 * 121 // 1024
    assert found["updated_at"] >= found["created_at"] > 1_700_000_000
    content = httpx.get(found["content"]["video_url"], trust_env=False)
    assert content.headers["content-type"] == "video/mp4"


def test_first_frame_by_its_role(client):
    url = "data:image/png;base64," + base64.b64encode(make_image(side=640)).decode()
    content = [
        {"type": "text", "text": "waves"},
        {"type": "image_url", "image_url": {"url": url}, "role": "first_frame"},
    ]
    name = created(client, content=content)
    assert finished(client, name)["ratio"] == "1:1"


def test_failed_task_has_the_vendors_error(client):
    found = finished(client, created(client, "[[fail:2038]] x"))
    assert found["status"] == "failed"
    assert found["error"]["code"] == "SensitiveContentDetected"
    assert "content" not in found


def test_list_filters_and_pages(client):
    names = [finished(client, created(client, f"waves {n}"))["id"] for n in range(3)]
    failed = finished(client, created(client, "[[fail:2038]] x"))["id"]
    client.generate_images(n=1)

    def listed(**query: Any) -> tuple[list[str], int]:
        body = client.http.get(TASKS, params=query).json()
        assert set(body) == {"items", "total"}
        return [item["id"] for item in body["items"]], body["total"]

    assert listed() == ([failed, *reversed(names)], 4)
    assert listed(page_num=2, page_size=3) == ([names[0]], 4)
    assert listed(**{"filter.status": "failed"}) == ([failed], 1)
    assert listed(**{"filter.status": "expired"}) == ([], 0)
    assert listed(**{"filter.status": "succeeded"})[1] == 3
    assert listed(**{"filter.task_ids": [names[0], names[2], "cgt-unknown"]}) == ([names[2], names[0]], 2)
    assert listed(**{"filter.task_ids": ["cgt-unknown"]}) == ([], 0)
    assert listed(**{"filter.model": MODEL})[1] == 4
    assert listed(**{"filter.model": "jimeng-video-3.0-pro"}) == ([], 0)
    assert listed(**{"filter.service_tier": "flex"}) == ([], 0)
    assert error_of(client.http.get(TASKS, params={"page_size": 501}))[:2] == (400, "InvalidParameter")


def test_finished_task_is_deleted_with_its_file(client):
    found = finished(client, created(client))
    response = client.http.delete(f"{TASKS}/{found['id']}")
    assert (response.status_code, response.json()) == (200, {})
    assert error_of(client.http.get(f"{TASKS}/{found['id']}"))[:2] == (404, "NotFound.TaskNotFound")
    assert httpx.get(found["content"]["video_url"], trust_env=False).status_code == 404


def test_queued_task_is_cancelled_and_a_running_one_is_refused(client):
    running = created(client, "[[seconds:6]] first")
    waiting = [created(client, f"[[seconds:6]] {n}") for n in range(4)][-1]
    eventually(lambda: task(client, running)["status"] == "running", what="the first one runs")
    assert task(client, waiting)["status"] == "queued"
    assert client.http.delete(f"{TASKS}/{waiting}").json() == {}
    assert task(client, waiting)["status"] == "cancelled"
    assert error_of(client.http.delete(f"{TASKS}/{waiting}"))[:2] == (403, "OperationDenied.InvalidState")
    assert error_of(client.http.delete(f"{TASKS}/{running}"))[:2] == (403, "OperationDenied.Running")
    assert task(client, running)["status"] == "running"


def test_tasks_of_others_are_not_found(client):
    name = created(client)
    with client.as_caller("another:sandbox") as other:
        for method in ("GET", "DELETE"):
            answer = other.http.request(method, f"{TASKS}/{name}")
            assert error_of(answer)[:2] == (404, "NotFound.TaskNotFound")
        assert other.http.get(TASKS, params={"filter.task_ids": name}).json()["total"] == 0
    assert error_of(client.http.get(f"{TASKS}/cgt-20261130-ab1cd"))[:2] == (404, "NotFound.TaskNotFound")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"content": []}, (400, "InvalidParameter", "content")),
        ({"duration": 77}, (400, "InvalidParameter", "duration")),
        ({"frames": 29}, (400, "InvalidParameter.UnsupportedParameter", "frames")),
        ({"negative_prompt": "x"}, (400, "InvalidParameter.UnsupportedParameter", "negative_prompt")),
        ({"service_tier": "flex"}, (400, "InvalidParameter.UnsupportedParameter", "service_tier")),
        ({"generate_audio": True}, (400, "InvalidParameter.UnsupportedParameter", "generate_audio")),
        (
            {"omni_reference_task_type": "edit"},
            (400, "InvalidParameter.UnsupportedParameter", "omni_reference_task_type"),
        ),
        ({"tools": [{"type": "web_search"}]}, (400, "InvalidParameter.UnsupportedParameter", "tools")),
        ({"model": "seedance-99"}, (404, "InvalidEndpointOrModel.NotFound", "model")),
    ],
)
def test_errors_have_the_vendors_shape(client, fields, expected):
    assert error_of(create(client, **fields)) == expected
