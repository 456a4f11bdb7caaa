"""Repeats over HTTP: which requests join an earlier job and which create a new one (openai-compat section 8)."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import psycopg
import pytest

from tests.support.api_client import IMAGES, ApiClient, assert_error, new_key
from tests.support.platform import eventually

SLOW = "[[seconds:1.5]]"
MARK = {"x-stainless-retry-count": "1"}


@pytest.fixture
def client(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform) as client:
        yield client


def cut(client: ApiClient, prompt: str = SLOW, *, after: float = 0.6, headers: dict | None = None, **fields) -> None:
    """Send a request and disconnect while it waits."""
    with pytest.raises(httpx.ReadTimeout):
        client.http.post(IMAGES, json={"prompt": prompt, "n": 1, **fields}, headers=headers, timeout=after)


def jobs_of(client: ApiClient) -> list[str]:
    return [job["id"] for job in client.http.get("/v1/jobs", params={"limit": 100}).json()["data"]]


@pytest.mark.parametrize("headers", [MARK, {}], ids=["marked", "unmarked"])
def test_repeat_after_cut_connection_joins(client, headers):
    cut(client)
    answer = client.generate_images(SLOW, n=1, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["idempotency-replayed"] == "true"
    assert jobs_of(client) == [answer.headers["x-job-id"]]
    assert len(client.submits()) == 1


CHAT, TALK = "/v1/chat/completions", "[[image:1]] [[pause:0.15]] [[words:20]]"
ANSWER_KINDS = {
    "image stream": (IMAGES, {"prompt": "[[seconds:2]]", "n": 1, "stream": True}),
    "video": ("/v1/videos/generations", {"prompt": "[[seconds:2]]"}),
    "chat": (CHAT, {"model": "jimeng-4.0", "messages": [{"role": "user", "content": "[[seconds:2]]"}]}),
    "agent": (CHAT, {"model": "agent", "messages": [{"role": "user", "content": TALK}]}),
}
ANSWER_KINDS |= {f"{name} stream": (CHAT, {**ANSWER_KINDS[name][1], "stream": True}) for name in ("chat", "agent")}


@pytest.mark.parametrize("headers", [MARK, {}], ids=["marked", "unmarked"])
@pytest.mark.parametrize("kind", ANSWER_KINDS)
def test_every_kind_of_cut_answer_is_joined(client, kind, headers):
    path, body = ANSWER_KINDS[kind]
    cut_off = time.monotonic() + 0.6
    with (
        contextlib.suppress(httpx.ReadTimeout),
        client.http.stream("POST", path, json=body, timeout=0.6) as first,
    ):
        for _ in first.iter_raw():
            if time.monotonic() > cut_off:
                break
        else:
            pytest.fail("It was answered before it could be cut.")
    answer = client.http.post(path, json=body, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["idempotency-replayed"] == "true"
    jobs = client.http.get("/v1/jobs", params={"limit": 100}).json()["data"]
    assert {job["parent"] or job["id"] for job in jobs} == {answer.headers["x-job-id"]}


@pytest.mark.parametrize("headers", [MARK, {}], ids=["marked", "unmarked"])
def test_second_and_third_repeat_join(client, headers):
    for _ in range(3):
        cut(client, "[[seconds:3]]", headers=headers)
    answer = client.generate_images("[[seconds:3]]", n=1, headers={**headers, "x-stainless-retry-count": "3"})
    assert answer.status_code == 200
    assert jobs_of(client) == [answer.headers["x-job-id"]]
    assert len(client.submits()) == 1


@pytest.mark.parametrize("headers", [MARK, {}], ids=["marked", "unmarked"])
def test_repeat_after_timed_out_wait_joins(client, headers):
    first = client.generate_images(SLOW, n=1, headers={"Prefer": "wait=0"})
    assert first.status_code == 504
    answer = client.generate_images(SLOW, n=1, headers=headers)
    assert answer.headers["x-job-id"] == first.headers["x-job-id"]
    assert len(client.submits()) == 1


def test_answered_request_is_joined_only_by_marked_retry(client):
    first = client.generate_images("a boat", n=1)
    marked = client.generate_images("a boat", n=1, headers=MARK)
    assert marked.json() == first.json()
    fresh = client.generate_images("a boat", n=1)
    assert fresh.headers["x-job-id"] != first.headers["x-job-id"]
    assert "idempotency-replayed" not in fresh.headers
    assert len(jobs_of(client)) == 2


def test_answered_repeat_ends_joining(client):
    cut(client)
    joined = client.generate_images(SLOW, n=1)
    fresh = client.generate_images(SLOW, n=1)
    assert joined.headers["x-job-id"] != fresh.headers["x-job-id"]


def test_other_body_path_or_caller_is_not_a_repeat(client):
    cut(client)
    answers = [
        client.generate_images(SLOW, n=1, seed=1, headers=MARK),
        client.generate_images(SLOW, n=1, user="me", headers=MARK),
    ]
    with client.as_caller(new_key()) as stranger:
        answers.append(stranger.generate_images(SLOW, n=1, headers=MARK))
    assert [answer.status_code for answer in answers] == [200] * 3, [answer.text for answer in answers]
    assert len({answer.headers["x-job-id"] for answer in answers} | set(jobs_of(client))) == 4
    same = client.generate_images(SLOW, n=1, watermark="unknown fields are ignored", headers=MARK)
    assert same.headers["x-job-id"] == min(jobs_of(client))


def test_parallel_identical_calls_create_separate_jobs(client):
    """`@ai-sdk/openai` sends n = 2 as two identical concurrent calls and expects two images."""
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.generate_images(SLOW, n=1), range(4)))
    assert len({answer.headers["x-job-id"] for answer in answers}) == 4


def test_two_cut_calls_are_joined_one_by_one(client):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: cut(client, "[[seconds:2]]", after=1), range(2)))
        made = set(jobs_of(client))
        answers = list(pool.map(lambda _: client.generate_images("[[seconds:2]]", n=1), range(2)))
    assert {answer.headers["x-job-id"] for answer in answers} == made == set(jobs_of(client))
    assert len(made) == 2


def test_open_call_is_not_joined_by_unrelated_marked_retry(client):
    """The first attempt of the marked retry was rejected, so no job of it can be joined."""
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.generate_images, "[[seconds:4]]", n=1)
        eventually(lambda: jobs_of(client), what="accepted")
        second = client.generate_images("[[seconds:4]]", n=1, headers=MARK)
    assert second.headers["x-job-id"] != first.result().headers["x-job-id"]


def test_disconnect_while_sending_creates_no_job(client):
    """No answer was sent, and a repeat would find nothing to join."""
    body = b'{"prompt": "a boat", "n": 1, "user": "' + b"x" * 150 + b'"}'
    head = f"POST {IMAGES} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.key}\r\nContent-Length: {len(body)}\r\n\r\n"
    import socket

    address = (client.platform.host, client.platform.port)
    with socket.create_connection(address) as line:
        line.sendall(head.encode() + body[:50])
    with socket.create_connection(address) as line:
        line.sendall(head.encode() + body)
    time.sleep(0.5)
    answer = client.generate_images("a boat", n=1, user="x" * 150)
    assert len(jobs_of(client)) == 1
    assert answer.status_code == 200


def test_cancelled_job_is_not_joined(client):
    cut(client, "[[hang]]")
    (job_id,) = jobs_of(client)
    client.cancel(job_id)
    client.wait_for_end(job_id)
    assert_error(client.generate_images("[[hang]]", n=1, headers=MARK), 409, "job_cancelled")
    fresh = client.generate_images("[[hang]]", n=1, headers={"Prefer": "wait=0"})
    assert fresh.headers["x-job-id"] != job_id
    client.cancel(fresh.headers["x-job-id"])


@pytest.mark.parametrize(
    ("words", "status", "code"), [("broke", 429, "insufficient_quota"), ("shark", 503, "upstream_risk_control")]
)
def test_free_rejection_is_not_kept(api_platform, words, status, code):
    """The key or mark of a request that failed at no cost can be used again; only the first has a job."""
    with ApiClient(api_platform, new_key(words)) as client:
        key = {"Idempotency-Key": "again"}
        answers = [client.generate_images(n=1, headers=headers) for headers in (key, key, MARK, MARK)]
        for answer in answers:
            assert_error(answer, status, code)
        assert ["x-job-id" in answer.headers for answer in answers] == [True, False, False, False], "no replay"
        assert len(jobs_of(client)) == 1, "the account cools down, so the others were rejected before acceptance"


def test_idempotency_keys_are_scoped_per_path(client):
    key = {"Idempotency-Key": "one"}
    first = client.generate_images("a boat", n=1, headers=key)
    other = client.http.post(f"/v1/jobs/{first.headers['x-job-id']}/retry", headers=key)
    assert other.status_code == 202
    assert other.headers["x-job-id"] != first.headers["x-job-id"]


def test_idempotency_keys_are_scoped_per_api_key(client, api_platform):
    """Two API keys of one user may use the same Idempotency-Key independently."""
    second = "sk-dreamery-second-key-of-the-admin-0123456789"
    with psycopg.connect(api_platform.database_url, autocommit=True) as connection:
        connection.execute(
            """INSERT INTO api_keys (id, user_id, name, prefix, key_hash)
               SELECT gen_random_uuid(), id, 'second', 'sk-dreamery-seco', encode(sha256(%s::bytea), 'hex')
               FROM users WHERE name = 'admin' ON CONFLICT DO NOTHING""",
            (second.encode(),),
        )
    key = {"Idempotency-Key": f"shared {time.time()}"}
    with client.as_caller(api_platform.admin_key) as one, client.as_caller(second) as two:
        answers = [one.generate_images("a boat", n=1, headers=key), two.generate_images("a ship", n=1, headers=key)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert_error(two.generate_images("a boat", n=1, headers=key), 422, "idempotency_key_reuse")


def test_every_request_end_is_recorded(client, api_platform):
    client.generate_images("a boat", n=1)
    cut(client)
    client.generate_images(SLOW, n=1, headers={"Prefer": "wait=0"})

    def ends() -> list[str]:
        with psycopg.connect(api_platform.database_url) as connection:
            rows = connection.execute(
                """SELECT r.ended_how FROM requests r JOIN jobs j ON j.id = r.group_id
                   WHERE j.id = ANY(%s::uuid[]) ORDER BY r.group_id""",
                ([job_id.removeprefix("job_") for job_id in jobs_of(client)],),
            ).fetchall()
        return [how for (how,) in rows]

    eventually(lambda: None not in ends(), what="all ends noted")
    assert ends() == ["answered", "timeout"]  # the second was cut, and joined by one whose wait ran out


def test_other_account_choice_is_another_request(api_platform):
    with ApiClient(api_platform, api_platform.admin_key) as admin:
        body = {"prompt": "a boat for one key", "n": 1, "async": True}
        mark = {"Idempotency-Key": f"choice-{uuid4()}"}
        first = admin.http.post(IMAGES, json=body, headers={**mark, "X-Accounts": "pool"})
        again = admin.http.post(IMAGES, json=body, headers={**mark, "X-Accounts": "pool"})
        other = admin.http.post(IMAGES, json=body, headers=mark)
    assert (first.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert other.json()["error"]["code"] == "idempotency_key_reuse"
