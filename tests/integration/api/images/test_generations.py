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
from tests.support.api_client import IMAGES, Face, error_of, new_key, not_repeatable


@pytest.fixture
def face(api_platform) -> Iterator[Face]:
    with Face(api_platform) as face:
        yield face


def pixels(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        return picture.size


def test_links_show_the_picture_that_was_asked_for(face):
    response = face.draw("a lighthouse", n=2, size="1792x1024", response_format="url", user="u-1")
    assert response.status_code == 200
    assert "Prefer" in response.headers["vary"]
    answer = response.json()
    ImagesAnswer.model_validate(answer)
    assert answer["size"] == "1664x936"
    assert len(answer["data"]) == 2
    assert len({one["url"] for one in answer["data"]}) == 2
    for one in answer["data"]:
        assert set(one) == {"url", "revised_prompt"}
        assert one["url"].startswith(face.platform.url)
        picture = httpx.get(one["url"], trust_env=False)  # without a key, as a browser does
        assert pixels(picture.content) == (1664, 936)
        assert picture.headers["content-type"] == f"image/{answer['output_format']}"
    job = face.job(response.headers["x-job-id"])
    assert [file["url"] for file in job["output"]] == [one["url"] for one in answer["data"]]
    assert job["metadata"] == {"user": "u-1"}
    assert (job["input"]["size"], job["progress"]) == ("1664x936", 100)
    assert job["usage"] == {"images": 2, "credits_estimated": 2, "credits_charged": 2}


def test_bytes_come_without_a_link(face):
    answer = face.draw(n=1, size="512x512", response_format="b64_json", output_format="png").json()
    (one,) = answer["data"]
    assert set(one) == {"b64_json", "revised_prompt"}
    content = base64.b64decode(one["b64_json"], validate=True)
    assert pixels(content) == (1328, 1328)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format.lower() == answer["output_format"] == "png"


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_the_format_asked_for_is_the_format_everywhere(face, form):
    response = face.draw(n=2, size="512x512", output_format=form, output_compression=100 if form == "png" else 40)
    answer = response.json()
    assert answer["output_format"] == form
    for one in answer["data"]:
        got = httpx.get(one["url"], trust_env=False)
        assert got.headers["content-type"] == f"image/{form}"
        with Image.open(io.BytesIO(got.content)) as picture:
            assert (picture.format.lower(), picture.size) == (form, (1328, 1328))
    job = face.job(response.headers["x-job-id"])
    assert {file["mime"] for file in job["output"]} == {f"image/{form}"}
    assert job["input"]["output_format"] == form


def test_what_openai_tells_back_is_told_back(face):
    answer = face.draw(n=1, quality="LOW", background="opaque", user="ann", safety_identifier="s-1").json()
    assert (answer["quality"], answer["background"], answer["safety_identifier"]) == ("low", "opaque", "s-1")
    assert (answer["size"], "usage" in answer) == ("1328x1328", False)
    plain = face.draw(n=1, quality="standard", background="auto", user="ann").json()
    assert not {"quality", "background"} & set(plain)
    assert plain["safety_identifier"] == "ann"


def test_what_real_clients_send_is_taken(face):
    nulls = dict.fromkeys(["model", "size", "quality", "style", "background", "output_format", "output_compression",
                           "moderation", "response_format", "stream", "partial_images", "user", "seed", "n"])  # fmt: skip
    answer = face.draw(**nulls).json()
    assert len(answer["data"]) == 4
    strange = {"size": "auto", "quality": "hd", "style": "vivid", "background": "auto", "watermark": False, "steps": 30}
    assert len(face.draw(n=1, **strange).json()["data"]) == 1


def test_every_wish_reaches_the_job(face):
    wishes = {"ratio": "16:9", "resolution": "1k", "negative_prompt": "rain", "sample_strength": 0.7, "seed": 42}
    response = face.draw(model="jimeng-image-4.0", n=1, metadata={"shop": "1"}, **wishes)
    job = face.job(response.headers["x-job-id"])
    assert wishes.items() <= job["input"].items()
    assert (job["model"], job["input"]["model"], job["metadata"]) == ("jimeng-4.0", "jimeng-image-4.0", {"shop": "1"})
    (line,) = face.submits()
    assert (line["count"], line["prompt"]) == (1, "a boat")


def test_a_model_that_cannot_count_keeps_what_it_made(face):
    response = face.draw(model="jimeng-3.0", n=1)
    assert len(response.json()["data"]) == 1
    assert len(face.job(response.headers["x-job-id"])["output"]) == 4
    assert len(face.draw(model="jimeng-3.0").json()["data"]) == 4


def test_more_than_a_job_can_give_is_two_jobs_and_one_answer_in_order(face):
    response = face.draw(n=10, size="512x512")
    answer = response.json()
    assert len({one["url"] for one in answer["data"]}) == 10
    jobs = face.http.get("/v1/jobs", params={"order": "asc"}).json()["data"]
    assert [job["input"]["n"] for job in jobs] == [10, 10]
    assert [len(job["output"]) for job in jobs] == [8, 2]
    assert [file["url"] for job in jobs for file in job["output"]] == [one["url"] for one in answer["data"]]
    assert response.headers["x-job-id"] == jobs[0]["id"]
    assert sorted(line["count"] for line in face.submits()) == [2, 8]


def test_fewer_than_asked_for_is_an_answer_that_says_so(face):
    response = face.draw("a boat [[partial:2]]", n=4)
    assert response.status_code == 200
    assert len(response.json()["data"]) == 2
    assert response.headers["x-partial-results"] == "2/4"


def test_when_all_jobs_fail_the_first_error_is_told(face):
    response = face.draw("[[fail:2005]]", n=10)
    error_of(response, 400, "content_policy_violation")
    jobs = face.http.get("/v1/jobs", params={"order": "asc"}).json()["data"]
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
def test_a_caller_that_does_not_wait_gets_the_job(face, headers, fields):
    response = face.draw("a boat", n=1, headers=headers, **fields)
    assert response.status_code == 202
    job = response.json()
    AcceptedJob.model_validate(job)
    assert job["object"] == "job"
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert response.headers["x-job-id"] == job["id"]
    assert response.headers["preference-applied"] == "respond-async"
    assert "Prefer" in response.headers["vary"]
    assert int(response.headers["retry-after"]) in range(1, 61)
    ended = face.ended(job["id"])
    assert (ended["status"], len(ended["output"])) == ("completed", 1)


def test_an_async_request_of_two_jobs_shows_both(face):
    job = face.start("a boat", n=9)
    assert job["jobs"][0]["id"] == job["id"]
    assert len(job["jobs"]) == 2
    for one in job["jobs"]:
        assert face.ended(one["id"])["status"] == "completed"


def test_a_wait_that_runs_out_names_the_job_which_goes_on(face):
    response = face.draw("[[seconds:2]]", n=1, headers={"Prefer": "wait=1"})
    job_id = response.headers["x-job-id"]
    assert job_id in error_of(response, 504, "generation_timeout")
    assert not_repeatable(response)
    assert int(response.headers["retry-after"]) in range(1, 61)  # when to ask for the job
    assert response.headers["preference-applied"] == "wait=1"
    assert face.job(job_id)["status"] == "in_progress"
    assert face.ended(job_id)["status"] == "completed"
    assert len(face.submits()) == 1


def test_the_sdks_own_timeout_shortens_the_wait(face):
    response = face.draw("[[seconds:3]]", n=1, headers={"x-stainless-read-timeout": "5.5"})
    error_of(response, 504, "generation_timeout")
    assert not_repeatable(response)


def test_async_with_a_wait_is_an_answer_when_there_is_time(face):
    both = {"Prefer": "respond-async, wait=20"}
    quick = face.draw(n=1, headers=both)
    assert (quick.status_code, quick.headers["preference-applied"]) == (200, "wait=20")
    slow = face.draw("[[seconds:3]]", n=1, headers={"Prefer": "wait=0"}, **{"async": True})
    assert slow.status_code == 202
    assert slow.json()["status"] in {"queued", "in_progress"}


def test_a_cancelled_job_ends_the_wait_of_its_caller(face):
    job = face.start("[[hang]]")
    face.becomes(job["id"], "in_progress")
    key = {"Idempotency-Key": "k"}
    waiting = face.start("[[hang]]")
    face.cancel(waiting["id"])
    assert face.draw("[[hang]]", n=1, headers={**key, "Prefer": "wait=0"}).status_code == 504
    second = face.draw("[[hang]]", n=1, headers={**key, "Prefer": "wait=0"}).headers["x-job-id"]
    face.cancel(second)
    face.ended(second)
    replay = face.draw("[[hang]]", n=1, headers=key)
    error_of(replay, 409, "job_cancelled")
    assert not_repeatable(replay)
    face.cancel(job["id"])


def test_links_outlive_upstream(face):
    url = face.draw(n=1, size="512x512").json()["data"][0]["url"]
    before = httpx.get(url, trust_env=False).content
    assert httpx.post(f"{face.platform.sandbox_url}/_reset", trust_env=False).status_code == 200
    assert httpx.get(url, trust_env=False).content == before


@pytest.fixture(scope="module")
def url(api_platform) -> str:
    """The link of a stored picture."""
    with Face(api_platform) as face:
        return face.draw(n=1, size="512x512").json()["data"][0]["url"]


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
        error_of(response, 416, "range_not_satisfiable")
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
    def test_a_finished_request_is_replayed(self, face):
        key = {"Idempotency-Key": '"once"'}
        first = face.draw(n=1, headers=key)
        again = face.draw(n=1, style="vivid", headers={"Idempotency-Key": "once"})
        assert (first.status_code, again.status_code) == (200, 200)
        assert again.json() == first.json()
        assert again.headers["x-job-id"] == first.headers["x-job-id"]
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        assert len(face.submits()) == 1

    def test_a_failure_is_replayed_too(self, face):
        key = {"Idempotency-Key": "once"}
        first, again = (face.draw("[[fail:2005]]", n=1, headers=key) for _ in range(2))
        assert (first.status_code, first.json()) == (again.status_code, again.json())
        assert not_repeatable(again)
        assert again.headers["idempotency-replayed"] == "true"

    def test_several_jobs_are_replayed_in_order(self, face):
        first, again = (face.draw(n=10, size="512x512", headers={"Idempotency-Key": "ten"}) for _ in range(2))
        assert again.json() == first.json()
        assert again.headers["x-job-id"] == first.headers["x-job-id"]

    def test_a_running_request_is_joined(self, face):
        key = {"Idempotency-Key": "join"}
        first = face.draw("[[seconds:1.5]]", n=1, headers={**key, "Prefer": "wait=0"})
        assert first.status_code == 504
        joined = face.draw("[[seconds:1.5]]", n=1, headers=key)
        assert joined.status_code == 200
        assert joined.headers["x-job-id"] == first.headers["x-job-id"]
        assert joined.headers["idempotency-replayed"] == "true"
        assert len(face.submits()) == 1

    def test_another_body_is_refused(self, face):
        key = {"Idempotency-Key": "mine"}
        job_id = face.draw("a boat", n=1, headers=key).headers["x-job-id"]
        response = face.draw("a ship", n=1, headers=key)
        error_of(response, 422, "idempotency_key_reuse")
        assert not not_repeatable(response)
        assert "x-job-id" not in response.headers
        assert face.draw("a boat", n=1, headers=key).headers["x-job-id"] == job_id

    def test_a_refused_request_does_not_use_up_its_key(self, face):
        key = {"Idempotency-Key": "later"}
        error_of(face.draw(model="gpt-9", headers=key), 404, "model_not_found", "model")
        assert face.draw(n=1, headers=key).status_code == 200

    def test_two_twins_at_once_are_one_job(self, face):
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(face.draw, "twins", n=1, headers={"Idempotency-Key": "twin"}) for _ in range(8)]
            answers = [one.result() for one in asked]
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.headers["x-job-id"] for answer in answers}) == 1
        assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
        assert len(face.submits()) == 1

    def test_keys_belong_to_their_caller(self, face):
        key = {"Idempotency-Key": "shared"}
        mine = face.draw(n=1, headers=key)
        with face.as_caller(new_key()) as stranger:
            theirs = stranger.draw("another picture", n=1, headers=key)
        assert theirs.status_code == 200
        assert theirs.headers["x-job-id"] != mine.headers["x-job-id"]

    def test_odd_keys_are_refused(self, face):
        error_of(face.draw(headers={"Idempotency-Key": "k" * 256}), 400, "invalid_value", "Idempotency-Key")


def test_a_caller_that_hangs_up_does_not_cancel_its_job(face):
    with pytest.raises(httpx.ReadTimeout):
        face.http.post(IMAGES, json={"prompt": "[[seconds:1]]", "n": 1}, timeout=0.3)
    started = time.monotonic()
    (job,) = face.http.get("/v1/jobs").json()["data"]
    assert face.ended(job["id"])["status"] == "completed"
    assert time.monotonic() - started < 30


def test_hard_coded_names_of_openai_draw_and_answer_as_their_clients_expect(face):
    (one,) = face.draw(model="gpt-image-1", n=1, size="512x512").json()["data"]
    assert set(one) == {"b64_json", "revised_prompt"}
    (one,) = face.draw(model="gpt-image-1", n=1, size="512x512", response_format="url").json()["data"]
    assert one["url"]
    (one,) = face.draw(model="dall-e-3", n=1, size="512x512").json()["data"]
    assert one["url"]


def test_flags_of_the_prompt_are_drawn_and_told(face):
    response = face.draw("a boat -re 1k -ra 16：9 [[seconds:0]]", n=1, size="1024x1024")
    assert response.json()["size"] == "1664x936"
    told = face.job(response.headers["x-job-id"])["input"]
    assert (told["prompt"], told["flags"]) == ("a boat [[seconds:0]]", {"resolution": "1k", "ratio": "16:9"})
    assert "1k, 2k, 4k" in error_of(face.draw("a boat -re 9k"), 400, "invalid_value", "prompt")
