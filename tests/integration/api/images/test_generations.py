"""`POST /v1/images/generations` on a running platform: requests, answers and their files."""

import base64
import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from api.images.schemas import ImagesAnswer
from api.jobs.schemas import AcceptedJob
from tests.support.api_client import IMAGES, ApiClient, assert_error, forbids_retry, new_key


@pytest.fixture
def client(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform) as client:
        yield client


def pixels(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        return picture.size


def test_link_serves_the_requested_image(client):
    response = client.generate_images("a lighthouse", n=2, size="1792x1024", response_format="url", user="u-1")
    assert response.status_code == 200
    assert "Prefer" in response.headers["vary"]
    answer = response.json()
    ImagesAnswer.model_validate(answer)
    assert answer["size"] == "1664x936"
    assert len(answer["data"]) == 2
    assert len({one["url"] for one in answer["data"]}) == 2
    for one in answer["data"]:
        assert set(one) == {"url", "revised_prompt"}
        assert one["url"].startswith(client.platform.url)
        picture = httpx.get(one["url"], trust_env=False)  # without a key, as a browser does
        assert pixels(picture.content) == (1664, 936)
        assert picture.headers["content-type"] == f"image/{answer['output_format']}"
    job = client.job(response.headers["x-job-id"])
    assert [file["url"] for file in job["output"]] == [one["url"] for one in answer["data"]]
    assert job["metadata"] == {"user": "u-1"}
    assert (job["input"]["size"], job["progress"]) == ("1664x936", 100)
    assert job["usage"] == {"images": 2, "credits_estimated": 2, "credits_charged": 2}


def test_base64_answer_has_no_link(client):
    answer = client.generate_images(n=1, size="512x512", response_format="b64_json", output_format="png").json()
    (one,) = answer["data"]
    assert set(one) == {"b64_json", "revised_prompt"}
    content = base64.b64decode(one["b64_json"], validate=True)
    assert pixels(content) == (1328, 1328)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format.lower() == answer["output_format"] == "png"


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_requested_format_is_used_everywhere(client, form):
    response = client.generate_images(
        n=2, size="512x512", output_format=form, output_compression=100 if form == "png" else 40
    )
    answer = response.json()
    assert answer["output_format"] == form
    for one in answer["data"]:
        got = httpx.get(one["url"], trust_env=False)
        assert got.headers["content-type"] == f"image/{form}"
        with Image.open(io.BytesIO(got.content)) as picture:
            assert (picture.format.lower(), picture.size) == (form, (1328, 1328))
    job = client.job(response.headers["x-job-id"])
    assert {file["mime"] for file in job["output"]} == {f"image/{form}"}
    assert job["input"]["output_format"] == form


def test_openai_fields_are_echoed(client):
    answer = client.generate_images(n=1, quality="LOW", background="opaque", user="ann", safety_identifier="s-1").json()
    assert (answer["quality"], answer["background"], answer["safety_identifier"]) == ("low", "opaque", "s-1")
    assert (answer["size"], "usage" in answer) == ("1328x1328", False)
    plain = client.generate_images(n=1, quality="standard", background="auto", user="ann").json()
    assert not {"quality", "background"} & set(plain)
    assert plain["safety_identifier"] == "ann"


def test_requests_of_real_clients_are_accepted(client):
    nulls = dict.fromkeys(["model", "size", "quality", "style", "background", "output_format", "output_compression",
                           "moderation", "response_format", "stream", "partial_images", "user", "seed", "n"])  # fmt: skip
    answer = client.generate_images(**nulls).json()
    assert len(answer["data"]) == 4
    strange = {"size": "auto", "quality": "hd", "style": "vivid", "background": "auto", "watermark": False, "steps": 30}
    assert len(client.generate_images(n=1, **strange).json()["data"]) == 1


def test_every_field_reaches_the_job(client):
    fields = {"ratio": "16:9", "resolution": "1k", "negative_prompt": "rain", "sample_strength": 0.7, "seed": 42}
    response = client.generate_images(model="jimeng-image-4.0", n=1, metadata={"shop": "1"}, **fields)
    job = client.job(response.headers["x-job-id"])
    assert fields.items() <= job["input"].items()
    assert (job["model"], job["input"]["model"], job["metadata"]) == ("jimeng-4.0", "jimeng-image-4.0", {"shop": "1"})
    (line,) = client.submits()
    assert (line["count"], line["prompt"]) == (1, "a boat")


def test_model_without_counts_keeps_all_results(client):
    response = client.generate_images(model="jimeng-3.0", n=1)
    assert len(response.json()["data"]) == 1
    assert len(client.job(response.headers["x-job-id"])["output"]) == 4
    assert len(client.generate_images(model="jimeng-3.0").json()["data"]) == 4


def test_large_n_is_two_jobs_and_one_ordered_answer(client):
    response = client.generate_images(n=10, size="512x512")
    answer = response.json()
    assert len({one["url"] for one in answer["data"]}) == 10
    jobs = client.http.get("/v1/jobs", params={"order": "asc"}).json()["data"]
    assert [job["input"]["n"] for job in jobs] == [10, 10]
    assert [len(job["output"]) for job in jobs] == [8, 2]
    assert [file["url"] for job in jobs for file in job["output"]] == [one["url"] for one in answer["data"]]
    assert response.headers["x-job-id"] == jobs[0]["id"]
    assert sorted(line["count"] for line in client.submits()) == [2, 8]


def test_partial_results_are_reported_in_a_header(client):
    response = client.generate_images("a boat [[partial:2]]", n=4)
    assert response.status_code == 200
    assert len(response.json()["data"]) == 2
    assert response.headers["x-partial-results"] == "2/4"


def test_first_error_is_returned_when_all_jobs_fail(client):
    response = client.generate_images("[[fail:2005]]", n=10)
    assert_error(response, 400, "content_policy_violation")
    jobs = client.http.get("/v1/jobs", params={"order": "asc"}).json()["data"]
    assert [job["status"] for job in jobs] == ["failed", "failed"]
    assert response.headers["x-job-id"] == jobs[0]["id"]


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({"Prefer": "respond-async"}, {}),
        ({}, {"async": True}),
        ({"Prefer": 'foo, Respond-Async; x="1"'}, {"async": None}),
    ],
)
def test_respond_async_returns_the_job(client, headers, fields):
    response = client.generate_images("a boat", n=1, headers=headers, **fields)
    assert response.status_code == 202
    job = response.json()
    AcceptedJob.model_validate(job)
    assert job["object"] == "job"
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert response.headers["x-job-id"] == job["id"]
    assert response.headers["preference-applied"] == "respond-async"
    assert "Prefer" in response.headers["vary"]
    assert int(response.headers["retry-after"]) in range(1, 61)
    ended = client.wait_for_end(job["id"])
    assert (ended["status"], len(ended["output"])) == ("completed", 1)


def test_async_request_with_two_jobs_lists_both(client):
    job = client.start_job("a boat", n=9)
    assert job["jobs"][0]["id"] == job["id"]
    assert len(job["jobs"]) == 2
    for one in job["jobs"]:
        assert client.wait_for_end(one["id"])["status"] == "completed"


def test_timed_out_wait_names_the_continuing_job(client):
    response = client.generate_images("[[seconds:2]]", n=1, headers={"Prefer": "wait=1"})
    job_id = response.headers["x-job-id"]
    assert job_id in assert_error(response, 504, "generation_timeout")
    assert forbids_retry(response)
    assert int(response.headers["retry-after"]) in range(1, 61)  # when to ask for the job
    assert response.headers["preference-applied"] == "wait=1"
    assert client.job(job_id)["status"] == "in_progress"
    assert client.wait_for_end(job_id)["status"] == "completed"
    assert len(client.submits()) == 1


def test_sdk_timeout_shortens_the_wait(client):
    response = client.generate_images("[[seconds:3]]", n=1, headers={"x-stainless-read-timeout": "5.5"})
    assert_error(response, 504, "generation_timeout")
    assert response.headers["x-should-retry"] == "true", "the repeat joins"


def test_async_with_wait_answers_when_finished_in_time(client):
    both = {"Prefer": "respond-async, wait=20"}
    quick = client.generate_images(n=1, headers=both)
    assert (quick.status_code, quick.headers["preference-applied"]) == (200, "wait=20")
    slow = client.generate_images("[[seconds:3]]", n=1, headers={"Prefer": "wait=0"}, **{"async": True})
    assert slow.status_code == 202
    assert slow.json()["status"] in {"queued", "in_progress"}


def test_cancelled_job_ends_the_wait(client):
    job = client.start_job("[[hang]]")
    client.wait_for_status(job["id"], "in_progress")
    key = {"Idempotency-Key": "k"}
    waiting = client.start_job("[[hang]]")
    client.cancel(waiting["id"])
    assert client.generate_images("[[hang]]", n=1, headers={**key, "Prefer": "wait=0"}).status_code == 504
    second = client.generate_images("[[hang]]", n=1, headers={**key, "Prefer": "wait=0"}).headers["x-job-id"]
    client.cancel(second)
    client.wait_for_end(second)
    replay = client.generate_images("[[hang]]", n=1, headers=key)
    assert_error(replay, 409, "job_cancelled")
    assert forbids_retry(replay)
    client.cancel(job["id"])


def test_links_work_after_upstream_deletes_results(client):
    url = client.generate_images(n=1, size="512x512").json()["data"][0]["url"]
    before = httpx.get(url, trust_env=False).content
    assert (
        httpx.post(
            f"{client.platform.sandbox_url}/_reset", headers=client.platform.sandbox_control_headers, trust_env=False
        ).status_code
        == 200
    )
    assert httpx.get(url, trust_env=False).content == before


@pytest.fixture(scope="module")
def url(api_platform) -> str:
    """Return the link of a stored image."""
    with ApiClient(api_platform) as client:
        return client.generate_images(n=1, size="512x512").json()["data"][0]["url"]


@pytest.fixture(scope="module")
def full_response(url) -> httpx.Response:
    """Return the response with the whole file."""
    return httpx.get(url, trust_env=False)


class TestFiles:
    def get(self, url: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.get(url, headers=named, trust_env=False)

    def test_whole_file(self, full_response):
        assert full_response.status_code == 200
        assert full_response.headers["accept-ranges"] == "bytes"
        assert "immutable" in full_response.headers["cache-control"]
        assert full_response.headers["x-content-type-options"] == "nosniff"
        assert "inline" in full_response.headers["content-disposition"]
        assert int(full_response.headers["content-length"]) == len(full_response.content)
        assert full_response.headers["x-request-id"]

    @pytest.mark.parametrize(
        ("header", "part"),
        [("bytes=0-9", slice(0, 10)), ("bytes=100-", slice(100, None)), ("bytes=-7", slice(-7, None)), ("bytes=5-5", slice(5, 6)),
         ("bytes=-99999999", slice(None)), ("bytes=10-99999999", slice(10, None))],
    )  # fmt: skip
    def test_range_returns_part(self, url, full_response, header, part):
        response = self.get(url, Range=header)
        assert response.status_code == 206
        expected = range(len(full_response.content))[part]
        assert response.content == full_response.content[part]
        assert response.headers["content-range"] == f"bytes {expected[0]}-{expected[-1]}/{len(full_response.content)}"

    @pytest.mark.parametrize("header", ["bytes=99999999-", "bytes=-0"])
    def test_range_outside_file_returns_416(self, url, full_response, header):
        response = self.get(url, Range=header)
        assert_error(response, 416, "range_not_satisfiable")
        assert response.headers["content-range"] == f"bytes */{len(full_response.content)}"

    @pytest.mark.parametrize(
        "header", ["bytes=9-5", "bytes=0-1,4-5", "lines=1-2", "bytes=", "bytes=" + "9" * 5000 + "-"]
    )
    def test_invalid_range_is_ignored(self, url, full_response, header):
        response = self.get(url, Range=header)
        assert (response.status_code, response.content) == (200, full_response.content)

    def test_conditional_requests(self, url, full_response):
        tag = full_response.headers["etag"]
        for given in (tag, f'"other", {tag}', "*", f"W/{tag}"):
            response = self.get(url, If_None_Match=given)
            assert (response.status_code, response.content) == (304, b"")
        assert self.get(url, If_None_Match='"other"').status_code == 200
        assert self.get(url, Range="bytes=0-1", If_Range=tag).status_code == 206
        assert self.get(url, Range="bytes=0-1", If_Range='"other"').status_code == 200

    def test_head_ignores_range(self, url, full_response):
        response = httpx.head(url, headers={"Range": "bytes=0-1"}, trust_env=False)
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["content-length"] == full_response.headers["content-length"]
        assert response.headers["content-type"] == full_response.headers["content-type"]


class TestIdempotency:
    def test_finished_request_is_replayed(self, client):
        key = {"Idempotency-Key": '"once"'}
        first = client.generate_images(n=1, headers=key)
        again = client.generate_images(n=1, style="vivid", headers={"Idempotency-Key": "once"})
        assert (first.status_code, again.status_code) == (200, 200)
        assert again.json() == first.json()
        assert again.headers["x-job-id"] == first.headers["x-job-id"]
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        assert len(client.submits()) == 1

    def test_failure_is_replayed(self, client):
        key = {"Idempotency-Key": "once"}
        first, again = (client.generate_images("[[fail:2005]]", n=1, headers=key) for _ in range(2))
        assert (first.status_code, first.json()) == (again.status_code, again.json())
        assert forbids_retry(again)
        assert again.headers["idempotency-replayed"] == "true"

    def test_several_jobs_are_replayed_in_order(self, client):
        first, again = (
            client.generate_images(n=10, size="512x512", headers={"Idempotency-Key": "ten"}) for _ in range(2)
        )
        assert again.json() == first.json()
        assert again.headers["x-job-id"] == first.headers["x-job-id"]

    def test_running_request_is_joined(self, client):
        key = {"Idempotency-Key": "join"}
        first = client.generate_images("[[seconds:1.5]]", n=1, headers={**key, "Prefer": "wait=0"})
        assert first.status_code == 504
        joined = client.generate_images("[[seconds:1.5]]", n=1, headers=key)
        assert joined.status_code == 200
        assert joined.headers["x-job-id"] == first.headers["x-job-id"]
        assert joined.headers["idempotency-replayed"] == "true"
        assert len(client.submits()) == 1

    def test_key_with_other_body_returns_422(self, client):
        key = {"Idempotency-Key": "mine"}
        job_id = client.generate_images("a boat", n=1, headers=key).headers["x-job-id"]
        response = client.generate_images("a ship", n=1, headers=key)
        assert_error(response, 422, "idempotency_key_reuse")
        assert not forbids_retry(response)
        assert "x-job-id" not in response.headers
        assert client.generate_images("a boat", n=1, headers=key).headers["x-job-id"] == job_id

    def test_rejected_request_does_not_use_its_key(self, client):
        key = {"Idempotency-Key": "later"}
        assert_error(client.generate_images(model="gpt-9", headers=key), 404, "model_not_found", "model")
        assert client.generate_images(n=1, headers=key).status_code == 200

    def test_concurrent_requests_with_one_key_create_one_job(self, client):
        with ThreadPoolExecutor(8) as pool:
            asked = [
                pool.submit(client.generate_images, "twins", n=1, headers={"Idempotency-Key": "twin"}) for _ in range(8)
            ]
            answers = [one.result() for one in asked]
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.headers["x-job-id"] for answer in answers}) == 1
        assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
        assert len(client.submits()) == 1

    def test_keys_are_scoped_per_caller(self, client):
        key = {"Idempotency-Key": "shared"}
        own_response = client.generate_images(n=1, headers=key)
        with client.as_caller(new_key()) as other:
            other_response = other.generate_images("another picture", n=1, headers=key)
        assert other_response.status_code == 200
        assert other_response.headers["x-job-id"] != own_response.headers["x-job-id"]

    def test_invalid_key_returns_400(self, client):
        assert_error(
            client.generate_images(headers={"Idempotency-Key": "k" * 256}), 400, "invalid_value", "Idempotency-Key"
        )


def test_disconnect_does_not_cancel_the_job(client):
    with pytest.raises(httpx.ReadTimeout):
        client.http.post(IMAGES, json={"prompt": "[[seconds:1]]", "n": 1}, timeout=0.3)
    started = time.monotonic()
    (job,) = client.http.get("/v1/jobs").json()["data"]
    assert client.wait_for_end(job["id"])["status"] == "completed"
    assert time.monotonic() - started < 30


def test_openai_model_names_answer_as_their_clients_expect(client):
    (one,) = client.generate_images(model="gpt-image-1", n=1, size="512x512").json()["data"]
    assert set(one) == {"b64_json", "revised_prompt"}
    (one,) = client.generate_images(model="gpt-image-1", n=1, size="512x512", response_format="url").json()["data"]
    assert one["url"]
    (one,) = client.generate_images(model="dall-e-3", n=1, size="512x512").json()["data"]
    assert one["url"]


def test_prompt_flags_are_applied_and_reported(client):
    response = client.generate_images("a boat -re 1k -ra 16：9 [[seconds:0]]", n=1, size="1024x1024")
    assert response.json()["size"] == "1664x936"
    job_input = client.job(response.headers["x-job-id"])["input"]
    assert (job_input["prompt"], job_input["flags"]) == ("a boat [[seconds:0]]", {"resolution": "1k", "ratio": "16:9"})
    assert "1k, 2k, 4k" in assert_error(client.generate_images("a boat -re 9k"), 400, "invalid_value", "prompt")
