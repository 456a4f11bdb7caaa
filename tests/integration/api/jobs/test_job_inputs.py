"""The inputs of a job over HTTP: its owner gets links to the files, which work as inputs of other calls. No task runs."""

import base64
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.support.api_client import assert_error, new_key
from tests.support.engine import Engine
from tests.support.uploads import make_image
from worker.core.ids import public_id

IMAGES, VIDEOS = "/v1/images/generations", "/v1/videos/generations"
LINK = "https://example.org/a.png"


def data_url(colour: str) -> str:
    return f"data:image/png;base64,{base64.b64encode(make_image(colour)).decode()}"


@pytest.fixture
def client(engine: Engine) -> Iterator[TestClient]:
    headers = {"Authorization": f"Bearer {new_key()}"}
    with TestClient(create_app(), headers=headers, raise_server_exceptions=False) as client:
        yield client


def start(client: TestClient, path: str, **fields: Any) -> str:
    answer = client.post(path, json={"prompt": "she waves", "async": True, **fields})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def account_of(client: TestClient, engine: Engine) -> UUID:
    """Return the account behind the session id of the client; a job creates it."""
    job = start(client, IMAGES)
    client.post(f"/v1/jobs/{job}/cancel")
    (row,) = engine.sql("SELECT account_ids FROM jobs")
    return UUID(str(row.account_ids[0]))


def inputs_of(client: TestClient, job: str) -> list[dict[str, Any]]:
    answer = client.get(f"/v1/jobs/{job}/inputs")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def test_files_and_links_are_listed_in_the_order_of_the_request(client: TestClient) -> None:
    job = start(client, VIDEOS, model="jimeng-video-3.0", images=[data_url("red"), LINK])
    first, last = inputs_of(client, job)
    assert (first["n"], first["role"], first["mime"], first["source_url"]) == (0, "first_frame", "image/png", None)
    assert client.get(first["url"], headers={"Authorization": ""}).content == make_image("red")
    assert (last["role"], last["url"], last["source_url"], last["width"]) == ("end_frame", None, LINK, None)
    assert inputs_of(client, start(client, IMAGES)) == []


def test_an_input_of_a_job_is_an_input_of_another(client: TestClient) -> None:
    (given,) = inputs_of(client, start(client, IMAGES, images=[data_url("red")]))
    (again,) = inputs_of(client, start(client, IMAGES, images=[given["url"]]))
    assert client.get(again["url"]).content == make_image("red")
    assert again["source_url"] is None
    for link in (given["url"].partition("?")[0], given["url"][:-4], given["url"].replace("-0?", "-1?")):
        answer = client.post(IMAGES, json={"prompt": "a boat", "images": [link]})
        assert_error(answer, 403, "link_not_signed", "images.0")
    assert_error(
        client.post(VIDEOS, json={"prompt": "a boat", "model": "jimeng-video-seedance-2.0", "videos": [given["url"]]}),
        400, "invalid_value", "videos.0",
    )  # fmt: skip


def test_a_removed_input_has_no_link(client: TestClient, engine: Engine) -> None:
    job = start(client, IMAGES, images=[data_url("red")])
    (before,) = inputs_of(client, job)
    engine.sql("UPDATE job_inputs SET removed_at = now()")
    (after,) = inputs_of(client, job)
    assert (after["url"], after["width"]) == (None, before["width"])
    answer = client.post(IMAGES, json={"prompt": "a boat", "images": [before["url"]]})
    assert_error(answer, 410, "file_expired", "images.0")


def test_inputs_are_listed_for_the_owner_only(client: TestClient) -> None:
    job = start(client, IMAGES, images=[data_url("red")])
    other = client.get(f"/v1/jobs/{job}/inputs", headers={"Authorization": f"Bearer {new_key()}"})
    assert_error(other, 404, "job_not_found")
    assert_error(client.get("/v1/jobs/job_1/inputs"), 404, "job_not_found")


def test_inputs_have_an_origin_that_stays_when_they_are_used_again(client: TestClient, engine: Engine) -> None:
    source = engine.add_succeeded_job(account_of(client, engine), count=2)
    result = next(row for row in engine.files(source) if row.n == 1)
    link = f"http://testserver/v1/files/{public_id('file', result.id)}/content"
    first = start(client, IMAGES, images=[link, data_url("red"), LINK])
    none = {"job": None, "n": None, "variant": None, "file": None}
    expected = [
        {
            "type": "result",
            "job": public_id("job", source),
            "n": 1,
            "variant": "original",
            "file": public_id("file", result.id),
        },
        {"type": "upload", **none},
        {"type": "url", **none},
    ]
    given = inputs_of(client, first)
    assert [item["origin"] for item in given] == expected
    assert client.get(given[1]["thumbnail_url"]).headers["content-type"] == "image/webp"
    # The stored inputs as inputs of another job, and a retry of that job.
    again = start(client, IMAGES, images=[given[0]["url"], given[1]["url"]])
    assert [item["origin"] for item in inputs_of(client, again)] == expected[:2]
    assert client.post(f"/v1/jobs/{again}/cancel").status_code == 200
    retried = client.post(f"/v1/jobs/{again}/retry", headers={"Prefer": "respond-async"}).json()["id"]
    assert [item["origin"] for item in inputs_of(client, retried)] == expected[:2]
    derived = client.get(f"/v1/jobs/{public_id('job', source)}/derived", params={"limit": 2}).json()
    assert [(item["id"], item["results"]) for item in derived["data"]] == [(retried, [1]), (again, [1])]
    assert derived["has_more"]
    rest = client.get(f"/v1/jobs/{public_id('job', source)}/derived", params={"after": again}).json()
    assert ([item["id"] for item in rest["data"]], rest["has_more"]) == ([first], False)
    # The bytes stay when the result is deleted; where they came from is not visible any more.
    engine.sql("UPDATE jobs SET deleted_at = now() WHERE id = :id", id=source)
    assert inputs_of(client, first)[0]["origin"] == {"type": "result", **none}
    assert_error(client.get(f"/v1/jobs/{public_id('job', source)}/derived"), 404, "job_not_found")


def test_jobs_of_others_are_no_origin_and_not_derived(client: TestClient, engine: Engine) -> None:
    source = engine.add_succeeded_job(engine.add_account())
    (result,) = engine.files(source)
    job = start(client, IMAGES, images=[f"http://testserver/v1/files/{public_id('file', result.id)}/content"])
    assert inputs_of(client, job)[0]["origin"]["type"] == "result"
    assert inputs_of(client, job)[0]["origin"]["job"] is None
    assert_error(client.get(f"/v1/jobs/{public_id('job', source)}/derived"), 404, "job_not_found")
