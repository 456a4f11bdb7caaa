"""The Ark-native endpoints with a key of the sandbox's Ark interface: what only that upstream has."""

import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.api.protocols.ark.test_ark_images import PATH as IMAGES
from tests.integration.api.protocols.ark.test_ark_images import error_of
from tests.integration.api.protocols.ark.test_ark_tasks import TASKS, finished
from tests.support.api_client import ApiClient

SETS, FLASH, PRO = "seedream-4-5-251128", "dola-seedream-5-0-flash-260915", "dola-seedream-5-0-pro-260628"
NEW, FAMILY, OLD = "dreamina-seedance-2-5-260628", "dreamina-seedance-2-0-260128", "seedance-1-0-pro-250528"


@pytest.fixture
def client(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform, f"ark-{secrets.token_hex(8)}:sandbox") as client:
        yield client


def image(client: ApiClient, **fields: Any) -> dict[str, Any]:
    response = client.http.post(IMAGES, json={"model": FLASH, "prompt": "a boat", "size": "1024x1024", **fields})
    assert response.status_code == 200, response.text
    return dict(response.json())


def video(client: ApiClient, *content: dict[str, Any], text: str = "waves", **fields: Any) -> httpx.Response:
    items = [*([{"type": "text", "text": text}] if text else []), *content]
    body = {"model": FAMILY, "content": items, "resolution": "480p", "ratio": "16:9", "duration": 4, **fields}
    return client.http.post(TASKS, json={name: value for name, value in body.items() if value is not None})


def task(client: ApiClient, *content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    response = video(client, *content, **fields)
    assert response.status_code == 200, response.text
    return finished(client, response.json()["id"])


def test_failure_has_the_code_of_upstream(client):
    code = "OutputVideoSensitiveContentDetected"
    found = task(client, text=f"[[fail:{code}]] waves")
    assert (found["status"], found["error"]["code"]) == ("failed", code)
    refused = "InputTextSensitiveContentDetected"
    response = client.http.post(IMAGES, json={"model": FLASH, "prompt": f"[[refuse:{refused}]] a boat"})
    assert error_of(response)[:2] == (400, refused)


def test_request_that_costs_too_much_is_refused(client):
    body = {"model": FLASH, "prompt": "a boat", "size": "1024x1024"}
    response = client.http.post(IMAGES, json=body, headers={"X-Max-Cost": "0.001 USD"})
    assert error_of(response)[:2] == (400, "SetLimitExceeded")
    assert client.http.post(IMAGES, json=body, headers={"X-Max-Cost": "0.1 USD"}).status_code == 200


def test_layers_say_where_they_are(client):
    link = image(client)["data"][0]["url"]
    body = image(client, model=PRO, image=link, layer_decomposition=True, size="1K", output_format="png")
    assert [item["z_index"] for item in body["data"]] == [0, 1, 2]
    assert "bounding_box" not in body["data"][0]
    box = {"absolute": [0, 0, 1024, 1024], "normalized": [0, 0, 1000, 1000]}
    assert (body["data"][1]["name"], body["data"][1]["bounding_box"]) == ("layer 1", box)
    assert body["usage"]["generated_images"] == 3


def test_set_with_a_refused_image_has_the_others(client):
    options = {"sequential_image_generation": "auto", "sequential_image_generation_options": {"max_images": 3}}
    body = image(client, model=SETS, prompt="[[refused:1]] boats", size="2048x2048", **options)
    assert body["usage"]["generated_images"] == len(body["data"]) == 2


def test_draft_and_its_final(client):
    draft = task(client, model=NEW, draft=True)
    assert (draft["status"], draft["draft"]) == ("succeeded", True)
    item = {"type": "draft_task", "draft_task": {"id": draft["id"]}}
    body = {"model": NEW, "content": [item], "resolution": "1080p", "return_last_frame": True}
    final = finished(client, client.http.post(TASKS, json=body).json()["id"])
    assert (final["status"], final["draft_task_id"]) == ("succeeded", draft["id"])
    assert (final["resolution"], final["duration"], final["ratio"]) == ("1080p", 4, "16:9")
    assert httpx.get(final["content"]["last_frame_url"], trust_env=False).headers["content-type"] == "image/jpeg"


def test_flex_tasks_have_a_list_of_their_own(client):
    found = task(client, model=OLD, service_tier="flex", seed=7, camera_fixed=True)
    assert (found["status"], found["service_tier"], found["seed"]) == ("succeeded", "flex", 7)
    assert client.http.get(TASKS).json()["total"] == 0
    assert client.http.get(TASKS, params={"filter.service_tier": "flex"}).json()["total"] == 1


def test_frames_need_no_text_and_decide_the_ratio(client):
    link = image(client)["data"][0]["url"]
    frames = [{"type": "image_url", "image_url": {"url": link}, "role": role} for role in ("first_frame", "last_frame")]
    found = task(client, *frames, text="", ratio="adaptive")
    assert found["status"] == "succeeded"
    assert found["ratio"] != "adaptive"


def test_old_parameters_in_a_text_are_removed_and_reported(client):
    found = task(client, text="waves --rs 1080p --wm true")
    assert found["resolution"] == "480p"
    assert "--rs" in found["adjusted"]["prompt"]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"seed": 3}, "InvalidParameter.UnsupportedParameter", "seed"),
        ({"service_tier": "flex"}, "InvalidParameter.UnsupportedParameter", "service_tier"),
        ({"draft": True}, "InvalidParameter.UnsupportedParameter", "draft"),
        ({"output_format": "mov"}, "InvalidParameter.UnsupportedParameter", "output_format"),
        ({"omni_reference_task_type": "edit"}, "InvalidParameter.UnsupportedParameter", "omni_reference_task_type"),
        ({"duration": 16}, "InvalidParameter", "duration"),
        ({"resolution": "8k"}, "InvalidParameter", "resolution"),
        ({"ratio": "5:4"}, "InvalidParameter", "ratio"),
        ({"callback_url": "https://a.example/"}, "InvalidParameter.UnsupportedParameter", "callback_url"),
    ],
)
def test_what_a_model_does_not_have_is_refused_before_a_job_exists(client, fields, code, param):
    assert error_of(video(client, **fields)) == (400, code, param)
    assert client.http.get("/v1/jobs").json()["data"] == []
