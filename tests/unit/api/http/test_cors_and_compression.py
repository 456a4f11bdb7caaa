"""Headers of every response: CORS, compression, request id, rate limits. No servers."""

import gzip

import pytest
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.testclient import TestClient

from api.app import create_app
from api.http.cors_and_compression import format_go_duration
from tests.support.api_client import assert_error
from worker.core.settings import get_settings

ORIGIN = "https://front.example"
REQUESTED_HEADERS = "authorization, content-type, x-stainless-lang, x-stainless-retry-count"


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("cors"))
        patch.setenv("DREAMERY_MASTER_KEY", "a key for tests only")
        patch.setenv("DREAMERY_SESSION_TOKENS", "on")
        patch.setenv("DREAMERY_LOG_LEVEL", "error")
        patch.setenv("DREAMERY_REQUEST_MAX_BYTES", "1000")
        get_settings.cache_clear()
        # There is no database that could have keys of accounts.
        patch.setattr("api.auth.known_keys._keys_exist", lambda: False)
        app = create_app()

        @app.get("/crash", include_in_schema=False)
        async def crash() -> None:
            raise RuntimeError

        @app.get("/stream", include_in_schema=False)
        async def stream() -> StreamingResponse:
            async def frames():
                yield b"data: " + b"x" * 5000 + b"\n\n"

            return StreamingResponse(frames(), media_type="text/event-stream")

        @app.get("/image", include_in_schema=False)
        async def image() -> StreamingResponse:
            return StreamingResponse(iter([b"x" * 5000]), media_type="image/png")

        @app.post("/made", include_in_schema=False)
        async def made() -> JSONResponse:
            return JSONResponse({"b64_json": "x" * 5000})

        yield app
        get_settings.cache_clear()


@pytest.fixture
def client(app):
    return TestClient(app, raise_server_exceptions=False, headers={"Authorization": "Bearer me"})


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/nonsense", "/crash", "/v1/files/x/content"])
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_preflight_needs_no_key(app, path, method):
    headers = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": REQUESTED_HEADERS,
        "Access-Control-Request-Private-Network": "true",
    }
    answer = TestClient(app).options(path, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert method in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == REQUESTED_HEADERS
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert "access-control-allow-credentials" not in answer.headers
    assert int(answer.headers["access-control-max-age"]) > 0
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 200), ("GET", "/v1/nonsense", 404), ("DELETE", "/v1/models", 405), ("GET", "/crash", 500),
        ("POST", "/v1/jobs", 413), ("OPTIONS", "/v1/models", 405),
    ],
)  # fmt: skip
def test_other_origins_may_read_every_response(client, method, path, status):
    content = b"x" * 1001 if status == 413 else None
    answer = client.request(method, path, content=content, headers={"Origin": ORIGIN})
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == "*"
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"x-request-id", "retry-after", "location", "preference-applied", "openai-poll-after-ms"} <= set(exposed)
    assert "x-ratelimit-remaining-requests" in exposed
    assert "access-control-allow-credentials" not in answer.headers


def test_every_response_has_standard_headers(client):
    for path in ("/healthz", "/v1/models", "/v1/nonsense", "/crash", "/docs"):
        answer = client.get(path)
        assert answer.headers["x-request-id"]
        assert int(answer.headers["openai-processing-ms"]) >= 0
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert_error(client.get("/crash"), 500, "internal_error")


def read_raw(client, method, path):
    with client.stream(method, path, headers={"Accept-Encoding": "gzip"}) as answer:
        return answer, b"".join(answer.iter_raw())


def test_get_responses_are_compressed(client):
    answer, body = read_raw(client, "GET", "/v1/models")
    assert answer.headers["content-encoding"] == "gzip"
    assert "Accept-Encoding" in answer.headers["vary"]
    assert gzip.decompress(body) == client.get("/v1/models", headers={"Accept-Encoding": "identity"}).content
    small, _ = read_raw(client, "GET", "/healthz")
    assert "content-encoding" not in small.headers


@pytest.mark.parametrize(("method", "path"), [("GET", "/stream"), ("GET", "/image"), ("POST", "/made")])
def test_streams_images_and_base64_are_not_compressed(client, method, path):
    answer, body = read_raw(client, method, path)
    assert "content-encoding" not in answer.headers
    assert b"xxx" in body


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (-1, "0ms"), (0.0115, "12ms"), (1, "1s"), (1.2, "2s"), (59.1, "1m0s"), (360, "6m0s"), (61, "1m1s")],
)
def test_format_go_duration(seconds, text):
    assert format_go_duration(seconds) == text
