"""Chinese errors of a running platform: whole sentences, with the useful part."""

import re
from collections.abc import Iterator

import pytest

from tests.support.api_client import ApiClient

CHINESE = re.compile(r"[\u4e00-\u9fff]{2}")
# Names of fields and models, and words that an error quotes, are at most two in a row.
ENGLISH_WORDS = re.compile(r"[A-Za-z]{2,} [A-Za-z]{2,} [A-Za-z]{2,}")


@pytest.fixture
def client(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/images/generations", {}),
        ("/v1/images/generations", {"prompt": "a", "n": 99}),
        ("/v1/images/generations", {"prompt": "a", "size": "huge"}),
        ("/v1/images/generations", {"prompt": "a", "ratio": "7:1"}),
        ("/v1/images/generations", {"prompt": "a", "model": "gpt-9"}),
        ("/v1/images/generations", {"prompt": "a", "image": "not base64 at all"}),
        ("/v1/images/generations", {"prompt": "a", "mask": "data:image/png;base64,iVBORw0KGgo="}),
        ("/v1/images/generations", {"prompt": ["a"]}),
        ("/v1/images/generations", [1]),
        ("/v1/videos/generations", {"prompt": "a", "seconds": 1234}),
        ("/v1/videos/generations", {"prompt": "a", "negative_prompt": "b"}),
        ("/v1/videos/generations", {"prompt": "a", "stream": True}),
        ("/v1/videos", {"prompt": "a", "n": 3}),
        ("/v1/chat/completions", {"model": "jimeng-4.0", "messages": []}),
        ("/v1/chat/completions", {"model": "jimeng-4.0", "messages": [{"role": "user", "content": ""}]}),
        ("/v1/chat/completions", {"model": "jimeng-4.0", "messages": "hello"}),
    ],
)
def test_common_validation_errors_have_no_english_tail(client, path, body):
    response = client.http.post(path, json=body, headers={"Accept-Language": "zh-CN"})
    assert 400 <= response.status_code < 500, response.text
    message = response.json()["error"]["message"]
    assert CHINESE.search(message), message
    assert not ENGLISH_WORDS.search(message), message


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs/job_0"),
        ("GET", "/v1/jobs?status=x"),
        ("GET", "/v1/jobs?limit=0"),
        ("GET", "/v1/jobs?created_after=x"),
        ("GET", "/v1/models/x"),
        ("GET", "/v1/videos/video_0"),
        ("GET", "/v1/usage?from=2026-01-02&to=2026-01-01"),
        ("GET", "/v1/images/generations"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/images/variations"),
        ("POST", "/v1/videos/edits"),
    ],
)
def test_errors_of_other_routes_have_no_english_tail(client, method, path):
    response = client.http.request(method, path, headers={"Accept-Language": "zh"})
    message = response.json()["error"]["message"]
    assert CHINESE.search(message), message
    assert not ENGLISH_WORDS.search(message), message


def test_failed_job_is_explained_in_chinese(client):
    """The row has the English text; a link that cannot be fetched says why."""
    body = {"prompt": "a", "n": 1, "image": "http://no-such-host.invalid/a.png", "async": True}
    job_id = client.http.post("/v1/images/generations", json=body).json()["id"]
    for _ in range(4):
        job = client.http.get(f"/v1/jobs/{job_id}", params={"wait": 30}, headers={"Accept-Language": "zh"}).json()
        if job["status"] == "failed":
            break
    assert job["error"]["message"].startswith("参考图 1无法获取：主机名 'no-such-host.invalid' 无法解析：")
