"""Clients that repeat a failed request although the answer forbids it: LangChain JS, AI SDK, LiteLLM's router."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from tests.support.api_client import IMAGES, ApiClient, assert_error, new_key
from tests.support.uploads import make_image

CHAT = "/v1/chat/completions"


@pytest.fixture
def client(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform) as client:
        yield client


def failing_prompt(code: str = "2002") -> str:
    return f"{uuid4().hex} [[fail:{code}]]"


def job_count(client: ApiClient) -> int:
    return len(client.http.get("/v1/jobs", params={"limit": 100}).json()["data"])


@pytest.mark.parametrize(
    ("script", "status", "code"), [("2002", 502, "generation_failed"), ("2005", 400, "content_policy_violation")]
)
def test_seven_attempts_of_a_client_that_ignores_should_retry_are_one_job(client, script, status, code):
    prompt = failing_prompt(script)
    answers = [client.generate_images(prompt, n=1) for _ in range(7)]
    messages = {assert_error(answer, status, code) for answer in answers}
    assert len(messages) == 1
    assert len({answer.headers["x-job-id"] for answer in answers}) == 1, "the id of the original job"
    assert [answer.headers.get("idempotency-replayed") for answer in answers] == [None, *["true"] * 6]
    assert job_count(client) == len(client.submits()) == 1


BODIES = {
    "picture stream": (IMAGES, lambda prompt: {"prompt": prompt, "n": 1, "stream": True}),
    "video": ("/v1/videos/generations", lambda prompt: {"prompt": prompt}),
    **{
        f"chat {'stream' if stream else 'answer'}": (
            CHAT,
            lambda prompt, stream=stream: {
                "model": "jimeng-4.0",
                "messages": [{"role": "user", "content": prompt}],
                "stream": stream,
            },
        )
        for stream in (False, True)
    },
}


@pytest.mark.parametrize("kind", BODIES)
def test_every_kind_of_failed_answer_is_repeated_without_a_job(client, kind):
    path, make_body = BODIES[kind]
    body = make_body(failing_prompt())
    first, again = (client.http.post(path, json=body) for _ in range(2))
    assert again.status_code == first.status_code
    assert "generation_failed" in first.text
    assert "generation_failed" in again.text
    assert again.headers["x-job-id"] == first.headers["x-job-id"]
    assert job_count(client) == 1


def test_parallel_repeats_of_one_failure_create_no_job(client):
    prompt = failing_prompt()
    first = client.generate_images(prompt, n=1)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.generate_images(prompt, n=1), range(16)))
    assert {answer.headers["x-job-id"] for answer in answers} == {first.headers["x-job-id"]}
    assert job_count(client) == 1


def test_deliberate_new_try_is_not_held_up(client):
    prompt = failing_prompt()
    first = client.generate_images(prompt, n=1)
    assert first.status_code == 502
    tries = [
        client.generate_images(prompt, n=1, seed=7),
        client.generate_images(f"{prompt} please", n=1),
        client.generate_images(prompt, n=2),
        client.generate_images(prompt, n=1, steps=5),
        client.generate_images(prompt, n=1, headers={"Idempotency-Key": uuid4().hex}),
        client.generate_images(prompt, n=1, headers={"Idempotency-Key": uuid4().hex}),
        client.generate_images(prompt, n=1, headers={"X-Dreamery-Job": "always"}),
    ]
    retry = f"/v1/jobs/{first.headers['x-job-id']}/retry"
    tries += [client.http.post(retry, headers={"Prefer": "wait=20"}) for _ in range(2)]
    ids = {answer.headers["x-job-id"] for answer in [first, *tries]}
    assert len(ids) == 10
    assert job_count(client) == 10


def test_same_words_later_in_a_chat_are_a_new_try(client):
    """The last message is the same, but the body is not: a person asks again after reading the failure."""
    ask = {"role": "user", "content": failing_prompt()}
    failure = {"role": "assistant", "content": "Upstream could not generate a result."}
    ids = {
        client.http.post(CHAT, json={"model": "jimeng-4.0", "messages": messages}).headers["x-job-id"]
        for messages in ([ask], [ask], [ask, failure, ask])
    }
    assert len(ids) == 2


def test_failed_form_is_repeated_and_a_changed_form_is_not(client):
    form = {"prompt": failing_prompt()}
    files = {"image": ("a.png", make_image("red"), "image/png")}
    answers = [
        client.http.post("/v1/images/edits", data={**form, **more}, files=files) for more in ({}, {}, {"note": "again"})
    ]
    assert [answer.status_code for answer in answers] == [502] * 3
    first, again, changed = (answer.headers["x-job-id"] for answer in answers)
    assert first == again != changed


def test_other_caller_or_path_gets_a_job_of_its_own(client):
    prompt = failing_prompt()
    first = client.generate_images(prompt, n=1)
    with client.as_caller(new_key()) as stranger:
        other = stranger.generate_images(prompt, n=1)
    assert other.headers["x-job-id"] != first.headers["x-job-id"]


def test_failure_that_was_polled_is_no_failed_answer(client):
    """A program that polls sends the same request again on purpose."""
    prompt = failing_prompt()
    ids = set()
    for _ in range(2):
        answer = client.http.post("/v1/videos", json={"prompt": prompt})
        assert answer.status_code == 200
        client.wait_for_end(answer.headers["x-job-id"])
        ids.add(answer.headers["x-job-id"])
    assert len(ids) == 2


def test_partly_successful_answer_is_not_repeated(client):
    prompt = f"{uuid4().hex} [[partial:1]]"
    ids = {client.generate_images(prompt, n=1).headers["x-job-id"] for _ in range(2)}
    assert len(ids) == 2


def test_failed_job_shows_no_progress(client):
    answer = client.generate_images(failing_prompt(), n=1)
    job = client.job(answer.headers["x-job-id"])
    assert (job["status"], job["progress"], job["eta"]) == ("failed", 0, None)


@pytest.mark.parametrize(
    ("words", "status", "code"), [("broke", 429, "insufficient_quota"), ("shark", 503, "upstream_risk_control")]
)
def test_account_that_cools_down_is_named_with_a_time_and_creates_no_failed_jobs(api_platform, words, status, code):
    with ApiClient(api_platform, new_key(words)) as client:
        first = client.generate_images(n=1)
        message = assert_error(first, status, code)
        assert "No account can take this job until 20" in message
        assert " UTC (in " in message
        for n in range(3):
            later = client.generate_images(f"another picture {n}", n=1)
            assert "No account can take this job until 20" in assert_error(later, status, code)
            assert later.headers["x-should-retry"] == "false"
            assert later.headers["x-cooldown-reset"].endswith("Z")
            assert int(later.headers["retry-after"]) == 60
            assert "x-job-id" not in later.headers
        chinese = client.generate_images("还有一张", n=1, headers={"Accept-Language": "zh"}).json()["error"]["message"]
        assert "没有账号可以执行该任务" in chinese
        assert "No account" not in chinese
        assert job_count(client) == 1


def test_dead_session_is_the_fault_of_the_caller_only_if_it_is_the_key(api_platform):
    """401 would tell clients that their API key is wrong; with accounts of the platform it is not."""
    with ApiClient(api_platform, new_key("dead")) as client:
        assert_error(client.generate_images(n=1), 401, "upstream_session_expired")
    with ApiClient(api_platform, api_platform.admin_key) as admin:
        name = f"user-{uuid4().hex}"
        assert admin.http.post("/admin/v1/users", json={"name": name}).status_code == 201
        key = admin.http.post("/admin/v1/keys", json={"user": name}).json()["key"]
        added = {"tokens": new_key("dead"), "check": False}
        with admin.as_caller(key) as user:
            assert user.http.post("/v1/accounts", json=added).status_code == 201
            headers = {"X-Accounts": "own"}
            first = user.generate_images(n=1, headers=headers)
            assert_error(first, 503, "upstream_session_expired")
            assert user.job(first.headers["x-job-id"])["status"] == "failed", "the job met the session"
            later = user.generate_images("another", n=1, headers=headers)
            assert later.status_code == 503, "nor is the key wrong while the account cools down"


def test_short_timeout_of_an_sdk_ends_with_the_picture_of_one_job(client):
    """openai-python with `timeout=10`: the early answer invites the repeat, which joins."""
    prompt = f"{uuid4().hex} [[seconds:3]]"
    answers = []
    for attempt in range(3):
        headers = {"x-stainless-read-timeout": "6", "x-stainless-retry-count": str(attempt)}
        answers.append(client.generate_images(prompt, n=1, headers=headers))
        if answers[-1].status_code == 200:
            break
        message = assert_error(answers[-1], 504, "generation_timeout")
        assert answers[-1].headers["x-should-retry"] == "true"
        assert "Send the same request again" in message
        time.sleep(int(answers[-1].headers["retry-after"]))
    assert answers[-1].status_code == 200
    assert len(answers) > 1
    assert job_count(client) == 1


def test_real_timeout_still_forbids_the_repeat(client):
    answer = client.generate_images(f"{uuid4().hex} [[seconds:2]]", n=1, headers={"Prefer": "wait=1"})
    assert_error(answer, 504, "generation_timeout")
    assert answer.headers["x-should-retry"] == "false"
