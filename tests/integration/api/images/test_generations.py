"""`POST /v1/images/generations` on a running platform: what is asked for, what comes back, and the files behind it."""

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


def test_links_show_the_picture_that_was_asked_for(client):
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


def test_bytes_come_without_a_link(client):
    answer = client.generate_images(n=1, size="512x512", response_format="b64_json", output_format="png").json()
    (one,) = answer["data"]
    assert set(one) == {"b64_json", "revised_prompt"}
    content = base64.b64decode(one["b64_json"], validate=True)
    assert pixels(content) == (1328, 1328)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format.lower() == answer["output_format"] == "png"


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_the_format_asked_for_is_the_format_everywhere(client, form):
    response = client.generate_images(n=2, size="512x512", output_format=form, output_compression=100 if form == "png" else 40)
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


def test_what_openai_tells_back_is_told_back(client):
    answer = client.generate_images(n=1, quality="LOW", background="opaque", user="ann", safety_identifier="s-1").json()
    assert (answer["quality"], answer["background"], answer["safety_identifier"]) == ("low", "opaque", "s-1")
    assert (answer["size"], "usage" in answer) == ("1328x1328", False)
    plain = client.generate_images(n=1, quality="standard", background="auto", user="ann").json()
    assert not {"quality", "background"} & set(plain)
    assert plain["safety_identifier"] == "ann"


def test_what_real_clients_send_is_taken(client):
    nulls = dict.fromkeys(["model", "size", "quality", "style", "background", "output_format", "output_compression",
                           "moderation", "response_format", "stream", "partial_images", "user", "seed", "n"])  # fmt: skip
    answer = client.generate_images(**nulls).json()
    assert len(answer["data"]) == 4
    strange = {"size": "auto", "quality": "hd", "style": "vivid", "background": "auto", "watermark": False, "steps": 30}
    assert len(client.generate_images(n=1, **strange).json()["data"]) == 1


def test_every_wish_reaches_the_job(client):
    wishes = {"ratio": "16:9", "resolution": "1k", "negative_prompt": "rain", "sample_strength": 0.7, "seed": 42}
    response = client.generate_images(model="jimeng-image-4.0", n=1, metadata={"shop": "1"}, **wishes)
    job = client.job(response.headers["x-job-id"])
    assert wishes.items() <= job["input"].items()
    assert (job["model"], job["input"]["model"], job["metadata"]) == ("jimeng-4.0", "jimeng-image-4.0", {"shop": "1"})
    (line,) = client.submits()
    assert (line["count"], line["prompt"]) == (1, "a boat")


def test_a_model_that_cannot_count_keeps_what_it_made(client):
    response = client.generate_images(model="jimeng-3.0", n=1)
    assert len(response.json()["data"]) == 1
    assert len(client.job(response.headers["x-job-id"])["output"]) == 4
    assert len(client.generate_images(model="jimeng-3.0").json()["data"]) == 4


def test_more_than_a_job_can_give_is_two_jobs_and_one_answer_in_order(client):
    response = client.generate_images(n=10, size="512x512")
    answer = response.json()
    assert len({one["url"] for one in answer["data"]}) == 10
    jobs = client.http.get("/v1/jobs", params={"order": "asc"}).json()["data"]
    assert [job["input"]["n"] for job in jobs] == [10, 10]
    assert [len(job["output"]) for job in jobs] == [8, 2]
    assert [file["url"] for job in jobs for file in job["output"]] == [one["url"] for one in answer["data"]]
    assert response.headers["x-job-id"] == jobs[0]["id"]
    assert sorted(line["count"] for line in client.submits()) == [2, 8]


def test_fewer_than_asked_for_is_an_answer_that_says_so(client):
    response = client.generate_images("a boat [[partial:2]]", n=4)
    assert response.status_code == 200
    assert len(response.json()["data"]) == 2
    assert response.headers["x-partial-results"] == "2/4"


def test_when_all_jobs_fail_the_first_error_is_told(client):
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
def test_a_caller_that_does_not_wait_gets_the_job(client, headers, fields):
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


def test_an_async_request_of_two_jobs_shows_both(client):
    job = client.start_job("a boat", n=9)
    assert job["jobs"][0]["id"] == job["id"]
    assert len(job["jobs"]) == 2
    for one in job["jobs"]:
        assert client.wait_for_end(one["id"])["status"] == "completed"


def test_a_wait_that_runs_out_names_the_job_which_goes_on(client):
    response = client.generate_images("[[seconds:2]]", n=1, headers={"Prefer": "wait=1"})
    job_id = response.headers["x-job-id"]
    assert job_id in assert_error(response, 504, "generation_timeout")
    assert forbids_retry(response)
    assert int(response.headers["retry-after"]) in range(1, 61)  # when to ask for the job
    assert response.headers["preference-applied"] == "wait=1"
    assert client.job(job_id)["status"] == "in_progress"
    assert client.wait_for_end(job_id)["status"] == "completed"
    assert len(client.submits()) == 1


def test_the_sdks_own_timeout_shortens_the_wait(client):
    response = client.generate_images("[[seconds:3]]", n=1, headers={"x-stainless-read-timeout": "5.5"})
    assert_error(response, 504, "generation_timeout")
    assert forbids_retry(response)


def test_async_with_a_wait_is_an_answer_when_there_is_time(client):
    both = {"Prefer": "respond-async, wait=20"}
    quick = client.generate_images(n=1, headers=both)
    assert (quick.status_code, quick.headers["preference-applied"]) == (200, "wait=20")
    slow = client.generate_images("[[seconds:3]]", n=1, headers={"Prefer": "wait=0"}, **{"async": True})
    assert slow.status_code == 202
    assert slow.json()["status"] in {"queued", "in_progress"}


def test_a_cancelled_job_ends_the_wait_of_its_caller(client):
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


def test_links_outlive_upstream(client):
    url = client.generate_images(n=1, size="512x512").json()["data"][0]["url"]
    before = httpx.get(url, trust_env=False).content
    assert httpx.post(f"{client.platform.sandbox_url}/_reset", trust_env=False).status_code == 200
    assert httpx.get(url, trust_env=False).content == before


@pytest.fixture(scope="module")
def url(api_platform) -> str:
    """The link of a stored picture."""
    with ApiClient(api_platform) as client:
        return client.generate_images(n=1, size="512x512").json()["data"][0]["url"]


@pytest.fixture(scope="module")
def whole(url) -> httpx.Response:
    """All of it."""
    return httpx.get(url, trust_env=False)


class TestFiles:
    def get(self, url: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.get(url, headers=named, trust_env=False)

    def test_whole(self, whole):
        assert whole.status_code == 200
        assert whole.headers["accept-ranges"] == "bytes"
        assert "immutable" in whole.headers["cache-control"]
        assert whole.headers["x-content-type-options"] == "nosniff"
        assert "inline" in whole.headers["content-disposition"]
        assert int(whole.headers["content-length"]) == len(whole.content)
        assert whole.headers["x-request-id"]

    @pytest.mark.parametrize(
        ("header", "part"),
        [("bytes=0-9", slice(0, 10)), ("bytes=100-", slice(100, None)), ("bytes=-7", slice(-7, None)), ("bytes=5-5", slice(5, 6)),
         ("bytes=-99999999", slice(None)), ("bytes=10-99999999", slice(10, None))],
    )  # fmt: skip
    def test_parts(self, url, whole, header, part):
        response = self.get(url, Range=header)
        assert response.status_code == 206
        wanted = range(len(whole.content))[part]
        assert response.content == whole.content[part]
        assert response.headers["content-range"] == f"bytes {wanted[0]}-{wanted[-1]}/{len(whole.content)}"

    @pytest.mark.parametrize("header", ["bytes=99999999-", "bytes=-0"])
    def test_parts_outside(self, url, whole, header):
        response = self.get(url, Range=header)
        assert_error(response, 416, "range_not_satisfiable")
        assert response.headers["content-range"] == f"bytes */{len(whole.content)}"

    @pytest.mark.parametrize(
        "header", ["bytes=9-5", "bytes=0-1,4-5", "lines=1-2", "bytes=", "bytes=" + "9" * 5000 + "-"]
    )
    def test_ranges_that_say_nothing(self, url, whole, header):
        response = self.get(url, Range=header)
        assert (response.status_code, response.content) == (200, whole.content)

    def test_what_the_caller_has(self, url, whole):
        tag = whole.headers["etag"]
        for given in (tag, f'"other", {tag}', "*", f"W/{tag}"):
            response = self.get(url, If_None_Match=given)
            assert (response.status_code, response.content) == (304, b"")
        assert self.get(url, If_None_Match='"other"').status_code == 200
        assert self.get(url, Range="bytes=0-1", If_Range=tag).status_code == 206
        assert self.get(url, Range="bytes=0-1", If_Range='"other"').status_code == 200

    def test_head(self, url, whole):
        response = httpx.head(url, headers={"Range": "bytes=0-1"}, trust_env=False)
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["content-length"] == whole.headers["content-length"]
        assert response.headers["content-type"] == whole.headers["content-type"]


class TestIdempotency:
    def test_a_finished_request_is_replayed(self, client):
        key = {"Idempotency-Key": '"once"'}
        first = client.generate_images(n=1, headers=key)
        again = client.generate_images(n=1, style="vivid", headers={"Idempotency-Key": "once"})
        assert (first.status_code, again.status_code) == (200, 200)
        assert again.json() == first.json()
        assert again.headers["x-job-id"] == first.headers["x-job-id"]
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        assert len(client.submits()) == 1

    def test_a_failure_is_replayed_too(self, client):
        key = {"Idempotency-Key": "once"}
        first, again = (client.generate_images("[[fail:2005]]", n=1, headers=key) for _ in range(2))
        assert (first.status_code, first.json()) == (again.status_code, again.json())
        assert forbids_retry(again)
        assert again.headers["idempotency-replayed"] == "true"

    def test_several_jobs_are_replayed_in_order(self, client):
        first, again = (client.generate_images(n=10, size="512x512", headers={"Idempotency-Key": "ten"}) for _ in range(2))
        assert again.json() == first.json()
        assert again.headers["x-job-id"] == first.headers["x-job-id"]

    def test_a_running_request_is_joined(self, client):
        key = {"Idempotency-Key": "join"}
        first = client.generate_images("[[seconds:1.5]]", n=1, headers={**key, "Prefer": "wait=0"})
        assert first.status_code == 504
        joined = client.generate_images("[[seconds:1.5]]", n=1, headers=key)
        assert joined.status_code == 200
        assert joined.headers["x-job-id"] == first.headers["x-job-id"]
        assert joined.headers["idempotency-replayed"] == "true"
        assert len(client.submits()) == 1

    def test_another_body_is_refused(self, client):
        key = {"Idempotency-Key": "mine"}
        job_id = client.generate_images("a boat", n=1, headers=key).headers["x-job-id"]
        response = client.generate_images("a ship", n=1, headers=key)
        assert_error(response, 422, "idempotency_key_reuse")
        assert not forbids_retry(response)
        assert "x-job-id" not in response.headers
        assert client.generate_images("a boat", n=1, headers=key).headers["x-job-id"] == job_id

    def test_a_refused_request_does_not_use_up_its_key(self, client):
        key = {"Idempotency-Key": "later"}
        assert_error(client.generate_images(model="gpt-9", headers=key), 404, "model_not_found", "model")
        assert client.generate_images(n=1, headers=key).status_code == 200

    def test_two_twins_at_once_are_one_job(self, client):
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(client.generate_images, "twins", n=1, headers={"Idempotency-Key": "twin"}) for _ in range(8)]
            answers = [one.result() for one in asked]
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.headers["x-job-id"] for answer in answers}) == 1
        assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
        assert len(client.submits()) == 1

    def test_keys_belong_to_their_caller(self, client):
        key = {"Idempotency-Key": "shared"}
        mine = client.generate_images(n=1, headers=key)
        with client.as_caller(new_key()) as stranger:
            theirs = stranger.generate_images("another picture", n=1, headers=key)
        assert theirs.status_code == 200
        assert theirs.headers["x-job-id"] != mine.headers["x-job-id"]

    def test_odd_keys_are_refused(self, client):
        assert_error(client.generate_images(headers={"Idempotency-Key": "k" * 256}), 400, "invalid_value", "Idempotency-Key")


def test_a_caller_that_hangs_up_does_not_cancel_its_job(client):
    with pytest.raises(httpx.ReadTimeout):
        client.http.post(IMAGES, json={"prompt": "[[seconds:1]]", "n": 1}, timeout=0.3)
    started = time.monotonic()
    (job,) = client.http.get("/v1/jobs").json()["data"]
    assert client.wait_for_end(job["id"])["status"] == "completed"
    assert time.monotonic() - started < 30


def test_hard_coded_names_of_openai_draw_and_answer_as_their_clients_expect(client):
    (one,) = client.generate_images(model="gpt-image-1", n=1, size="512x512").json()["data"]
    assert set(one) == {"b64_json", "revised_prompt"}
    (one,) = client.generate_images(model="gpt-image-1", n=1, size="512x512", response_format="url").json()["data"]
    assert one["url"]
    (one,) = client.generate_images(model="dall-e-3", n=1, size="512x512").json()["data"]
    assert one["url"]


def test_flags_of_the_prompt_are_drawn_and_told(client):
    response = client.generate_images("a boat -re 1k -ra 16：9 [[seconds:0]]", n=1, size="1024x1024")
    assert response.json()["size"] == "1664x936"
    told = client.job(response.headers["x-job-id"])["input"]
    assert (told["prompt"], told["flags"]) == ("a boat [[seconds:0]]", {"resolution": "1k", "ratio": "16:9"})
    assert "1k, 2k, 4k" in assert_error(client.generate_images("a boat -re 9k"), 400, "invalid_value", "prompt")
