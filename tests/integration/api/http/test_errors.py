"""Errors of a running platform over HTTP: OpenAI's shape, status and headers."""

import http.client
import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.support.api_client import IMAGES, ApiClient, assert_error, forbids_retry, new_key
from worker.core.errors import ERRORS

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform) as client:
        yield client


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"", 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
        (b'"x"', 400, "invalid_json"),
        (b"null", 400, "invalid_json"),
        (b"NaN", 400, "invalid_json"),
        (b'{"prompt": "\xff"}', 400, "invalid_json"),
        (b'{"prompt": ' + b"[" * 100_000 + b"}", 400, "invalid_json"),
        (b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}", 400, "invalid_json"),
    ],
)
def test_invalid_json_body_returns_400(client, content, status, code):
    response = client.http.post(IMAGES, content=content, headers=JSON)
    assert_error(response, status, code)
    assert not forbids_retry(response)
    assert "x-job-id" not in response.headers


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ("{}", "missing_required_parameter", "prompt"),
        ('{"prompt": " "}', "invalid_value", "prompt"),
        ('{"prompt": "a\\u0000"}', "invalid_value", "prompt"),
        ('{"prompt": "\\ud800"}', "invalid_value", "prompt"),
        ('{"prompt": "a", "negative_prompt": "\\udfff"}', "invalid_value", "negative_prompt"),
        ('{"prompt": "a", "metadata": {"\\ud800": "a"}}', "invalid_value", "metadata.���.[key]"),
        ('{"prompt": "a", "user": "\\u0000"}', "invalid_value", "user"),
        ('{"prompt": "a", "n": 1e400}', "invalid_value", "n"),
        ('{"prompt": "a", "n": 0}', "invalid_value", "n"),
        ('{"prompt": "a", "seed": Infinity}', "invalid_value", "seed"),
        ('{"prompt": "a", "sample_strength": NaN}', "invalid_value", "sample_strength"),
        ('{"prompt": "a", "size": "big"}', "invalid_value", "size"),
        ('{"prompt": "a", "size": "512x512", "ratio": "16:9"}', "invalid_value", "ratio"),
        ('{"prompt": "a", "resolution": "9k"}', "invalid_value", "resolution"),
        ('{"prompt": "a", "response_format": "jpg"}', "invalid_value", "response_format"),
        ('{"prompt": "a", "metadata": {"a": 1}}', "invalid_value", "metadata.a"),
        ('{"prompt": "' + "x" * 32_001 + '"}', "prompt_too_long", "prompt"),
    ],
)
def test_invalid_field_values_return_400(client, fields, code, param):
    response = client.http.post(IMAGES, content=fields.encode(), headers=JSON)
    assert_error(response, 400, code, param)
    assert not forbids_retry(response)


def test_unknown_model_returns_404(client):
    assert "gpt-9" in assert_error(client.generate_images(model="gpt-9"), 404, "model_not_found", "model")
    assert_error(client.http.get("/v1/models/gpt-9"), 404, "model_not_found", "model")


def test_unsupported_content_type_returns_415(client):
    response = client.http.post(IMAGES, content=b'{"prompt": "a"}', headers={"Content-Type": "text/plain"})
    assert_error(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("content_type", "code", "param"),
    [
        ("application/x-www-form-urlencoded", "missing_required_parameter", "prompt"),
        ("multipart/form-data; boundary=x", "invalid_form", None),
        ("multipart/form-data", "invalid_form", None),
    ],
)
def test_body_that_is_not_the_declared_form_returns_400(client, content_type, code, param):
    response = client.http.post(IMAGES, content=b'{"prompt": "a"}', headers={"Content-Type": content_type})
    assert_error(response, 400, code, param)


def test_body_without_content_type_is_parsed_as_json(client):
    assert_error(client.http.post(IMAGES, content=b'{"prompt": ""}'), 400, "invalid_value", "prompt")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1/nothing/here", "/v1/images/variations", "/v1/responses", "/console/sign-in/x"]
)
def test_unknown_url_returns_404(client, method, path):
    assert path in assert_error(client.http.request(method, path), 404, "unknown_url")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", IMAGES, "POST"), ("OPTIONS", IMAGES, "POST"), ("DELETE", "/v1/models", "GET"), ("PUT", "/v1/jobs", "GET"),
     ("GET", "/v1/jobs/job_x/cancel", "POST"), ("PATCH", "/healthz", "GET"),
     ("GET", "/console/sign-in/sessions", "DELETE"), ("GET", "/console/sign-in/sessions/1", "DELETE"),
     ("GET", "/console/session/password", "POST")],
)  # fmt: skip
def test_unsupported_method_returns_405(client, method, path, allow):
    response = client.http.request(method, path)
    assert_error(response, 405, "method_not_allowed")
    assert response.headers["allow"] == allow


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), (IMAGES, 405)])
def test_head_returns_headers_only(client, path, status):
    response = client.http.head(path)
    assert (response.status_code, response.content) == (status, b"")
    assert response.headers["x-request-id"]


def test_body_over_limit_by_content_length_returns_413(client):
    assert_error(client.http.post(IMAGES, json={"prompt": "x" * 1_000_000}), 413, "request_too_large")


def test_chunked_body_over_limit_returns_413(client):
    def chunks() -> Iterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(40):
            yield b"x" * 50_000
        yield b'"}'

    assert_error(client.http.post(IMAGES, content=chunks(), headers=JSON), 413, "request_too_large")


def test_expect_continue_with_too_large_body_returns_413(api_platform):
    with socket.create_connection(("127.0.0.1", api_platform.port), timeout=20) as line:
        line.sendall(
            f"POST {IMAGES} HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        answer = http.client.HTTPResponse(line)
        answer.begin()
        assert answer.status == 413
        assert json.loads(answer.read())["error"]["code"] == "request_too_large"


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "missing_api_key"), ("", "missing_api_key"), ("Bearer", "missing_api_key"), ("Basic eDp5", "missing_api_key"),
        ("Bearer ,", "missing_api_key"), ("Bearer sk-dreamery-wrong", "invalid_api_key"), ("Bearer a:mars", "invalid_api_key"),
        ("Bearer a b", "invalid_api_key"), ("Bearer ok:sandbox,b:mars", "invalid_api_key"), ("Bearer us-a:cn", "invalid_api_key"),
        ("Bearer " + ",".join(f"s{i}" for i in range(101)), "invalid_api_key"), (b"Bearer \xff\xfe", "invalid_api_key"),
        ("Bearer http://u:proxy.example@10.0.0.9:1@token", "invalid_api_key"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/models"), ("POST", IMAGES), ("GET", "/v1/jobs/job_x/events")]
)
def test_invalid_credentials_return_401(api_platform, authorization, code, method, path):
    headers = {} if authorization is None else {"Authorization": authorization}
    body = {"prompt": "a"} if method == "POST" else None
    response = httpx.request(method, api_platform.url + path, headers=headers, json=body, trust_env=False)
    assert_error(response, 401, code)
    assert response.headers["www-authenticate"] == "Bearer"
    text = authorization.decode("latin-1") if isinstance(authorization, bytes) else authorization or ""
    for part in ("proxy.example", "sk-dreamery-wrong"):
        assert part not in response.text or part not in text


def test_accepted_forms_of_credentials(api_platform):
    for headers in (
        {"Authorization": "bEaReR   demo:sandbox"},
        {"api-key": "demo:sandbox"},
        {"Authorization": f"Bearer {api_platform.admin_key}"},
    ):
        assert (
            httpx.get(f"{api_platform.url}/v1/models?api-version=x", headers=headers, trust_env=False).status_code
            == 200
        )


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("order=up", "order"), ("status=done", "status"),
        ("status=", "status"), ("kind=%ff", "kind"), ("model=%00", "model"), ("created_after=soon", "created_after"),
        ("created_before=" + "9" * 400, "created_before"), ("created_before=9e999", "created_before"),
    ],
)  # fmt: skip
def test_invalid_job_list_query_returns_400(client, query, param):
    assert_error(client.http.get(f"/v1/jobs?{query}"), 400, "invalid_value", param)


@pytest.mark.parametrize("job_id", ["job_" + "0" * 32, "job_x", "x", "job_" + "\u0660" * 32, "file_" + "0" * 32, "%00"])
def test_unknown_job_returns_404(client, job_id):
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
        response = client.http.request(method, f"/v1/jobs/{job_id}{path}", headers={"Last-Event-ID": "9" * 5000})
        assert_error(response, 404, "job_not_found")
        assert "x-job-id" not in response.headers
    assert_error(client.http.get("/v1/jobs", params={"after": "nonsense"}), 404, "job_not_found")
    assert_error(client.http.get(f"/v1/jobs/job_{'0' * 32}?wait=nan"), 400, "invalid_value", "wait")


def test_unknown_file_returns_404(client):
    assert_error(client.http.get(f"/v1/files/file_{'0' * 32}/content"), 404, "file_not_found")


@pytest.mark.parametrize(
    ("session", "prompt", "status", "code"),
    [
        ("caller", "[[fail:2005]]", 400, "content_policy_violation"),
        ("caller", "[[fail:40]]", 400, "content_policy_violation"),
        ("caller", "[[fail:2002]]", 502, "generation_failed"),
        ("broke", "a boat", 429, "insufficient_quota"),
        ("dead", "a boat", 401, "upstream_session_expired"),
        ("limited", "a boat", 429, "account_limited"),
        ("shark", "a boat", 503, "upstream_risk_control"),
    ],
)
def test_failed_job_forbids_retry(api_platform, session, prompt, status, code):
    with ApiClient(api_platform, new_key(session)) as client:
        response = client.generate_images(prompt, n=1)
        job_id = response.headers["x-job-id"]
        job = client.job(job_id)
        assert job["status"] == "failed"
        assert set(job["error"]) == {"message", "type", "param", "code"}
        assert assert_error(response, status, code) == job["error"]["message"]
        assert forbids_retry(response)
        assert "retry-after" not in response.headers


def test_job_error_is_translated_in_response_and_job(api_platform):
    with ApiClient(api_platform, new_key("dead-chinese-")) as client:
        client.http.headers["Accept-Language"] = "zh-CN,zh;q=0.9"
        response = client.generate_images(n=1)
        message = assert_error(response, 401, "upstream_session_expired")
        assert message == ERRORS["upstream_session_expired"].message_zh
        job = client.http.get(f"/v1/jobs/{response.headers['x-job-id']}")
        assert job.json()["error"]["message"] == message
        assert "Accept-Language" in job.headers["vary"]
        del client.http.headers["Accept-Language"]
        assert (
            client.job(response.headers["x-job-id"])["error"]["message"] == ERRORS["upstream_session_expired"].message
        )
