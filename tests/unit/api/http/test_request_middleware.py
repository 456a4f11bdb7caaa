"""The request middleware, the error object for every failure, and the OpenAPI document. No servers."""

import re
import time
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from api.accounts import session_check_schemas
from api.admin import schemas as admin_schemas
from api.app import create_app
from api.chat import schemas as chat_schemas
from api.http.body_parsing import body_openapi
from api.http.docs.openapi import install_openapi
from api.http.errors import error_response
from api.http.preferences import set_job_id_header
from api.jobs import schemas
from api.jobs.webhooks import schemas as webhooks_schemas
from api.videos import schemas as videos_schemas
from tests.support.api_client import assert_error, forbids_retry
from worker.core.errors import ERRORS, DreameryError
from worker.core.settings import get_settings

JOB = "job_0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("middleware"))
        patch.setenv("DREAMERY_MASTER_KEY", "a key for tests only")
        patch.setenv("DREAMERY_SESSION_TOKENS", "on")
        patch.setenv("DREAMERY_SANDBOX_URL", "http://127.0.0.1:1")
        patch.setenv("DREAMERY_REQUEST_MAX_BYTES", "1000")
        patch.setenv("DREAMERY_REQUEST_MAX_UPLOAD_BYTES", "1500")
        patch.setenv("DREAMERY_LOG_LEVEL", "error")
        get_settings.cache_clear()
        app = create_app()
        _add_crash(app)
        yield app
        get_settings.cache_clear()


def _add_crash(app: FastAPI) -> None:
    """Add a route that raises the error in `app.state.crash`, before or after a job was accepted."""

    @app.get("/crash", include_in_schema=False)
    async def crash(request: Request) -> None:
        error, accepted = app.state.crash
        if accepted:
            set_job_id_header(request, JOB, accepted=True)
        raise error


@pytest.fixture
def client(app):
    return TestClient(app, raise_server_exceptions=False, headers={"Authorization": "Bearer me:sandbox"})


def crash(client: TestClient, error: Exception, *, accepted: bool) -> Any:
    client.app.state.crash = (error, accepted)
    return client.get("/crash")


@pytest.mark.parametrize(
    "error", [RuntimeError("secret text"), KeyError("x"), UnicodeEncodeError("utf-8", "x", 0, 1, "y")]
)
def test_crash_returns_500_without_details(client, error):
    response = crash(client, error, accepted=False)
    assert_error(response, 500, "internal_error")
    assert "secret" not in response.text
    assert not forbids_retry(response)
    assert "x-job-id" not in response.headers


@pytest.mark.parametrize("error", [RuntimeError("x"), OperationalError("select", {}, Exception("gone"))])
def test_crash_after_acceptance_names_job_and_forbids_retry(client, error):
    response = crash(client, error, accepted=True)
    code = "internal_error" if isinstance(error, RuntimeError) else "overloaded"
    assert JOB in assert_error(response, ERRORS[code].status, code)
    assert response.headers["x-job-id"] == JOB
    assert forbids_retry(response)
    assert "retry-after" not in response.headers


def test_database_outage_before_acceptance_allows_retry(client):
    response = crash(client, OperationalError("select", {}, Exception("gone")), accepted=False)
    assert_error(response, 503, "overloaded")
    assert response.headers["retry-after"] == "5"
    assert not forbids_retry(response)


@pytest.mark.parametrize("accepted", [False, True])
def test_every_error_code_has_openai_shape(client, accepted):
    for code, kind in ERRORS.items():
        response = crash(client, DreameryError(code), accepted=accepted)
        assert_error(response, kind.status, code)
        assert forbids_retry(response) == accepted


def test_started_response_is_cut_off_on_error(app):
    @app.get("/half", include_in_schema=False)
    async def half() -> StreamingResponse:
        async def chunks():
            yield b"first"
            raise RuntimeError("x")

        return StreamingResponse(chunks())

    with pytest.raises(RuntimeError, match="x"):
        TestClient(app).get("/half")


@pytest.mark.parametrize(("seconds", "sent"), [(-5, "1"), (0, "1"), (30, "30"), (86_400, "60")])
def test_retry_after_is_limited_to_1_to_60(seconds, sent):
    response = error_response(DreameryError("queue_full", retry_after=seconds))
    assert response.headers["retry-after"] == sent


def test_safe_request_id_of_caller_is_kept(client):
    assert client.get("/healthz", headers={"X-Request-Id": "my id-1"}).headers["x-request-id"] == "my id-1"
    for unsafe in (b"x" * 101, b"caf\xe9", b""):
        assert client.get("/healthz", headers={"X-Request-Id": unsafe}).headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/", "//v1/models", "/v1//models//"])
def test_extra_slashes_are_ignored(client, path):
    assert client.get(f"http://testserver{path}").json()["object"] == "list"


def test_model_ids_may_contain_slashes_and_colons(client):
    assert client.get("/v1/models/jimeng-4.0").json()["id"] == "jimeng-4.0"
    assert_error(client.get("/v1/models/org/name:tag"), 404, "model_not_found", "model")


def test_only_upload_paths_accept_larger_bodies(client):
    for path in ("/v1/images/generations", "//v1/images/edits/", "/v1/images/compositions"):
        assert_error(
            client.post(f"http://testserver{path}", json={"n": "x" * 1100}), 400, "missing_required_parameter", "prompt"
        )
    assert_error(client.post("/v1/jobs", json={"n": "x" * 1100}), 413, "request_too_large")


@pytest.mark.parametrize("prompt", ["x" * 1500, "é" * 900])
def test_body_over_limit_is_rejected_by_content_length(client, prompt):
    assert_error(client.post("/v1/images/generations", json={"prompt": prompt}), 413, "request_too_large")


def test_chunked_body_over_limit_is_rejected(client):
    def chunks():
        yield b'{"prompt": "'
        for _ in range(20):
            yield b"x" * 100
        yield b'"}'

    headers = {"Content-Type": "application/json"}
    response = client.post("/v1/images/generations", content=chunks(), headers=headers)
    assert_error(response, 413, "request_too_large")


@pytest.mark.parametrize("code", ["queue_full", "no_account_available", "overloaded", "rate_limit_exceeded"])
def test_retryable_error_has_retry_after(client, code):
    """Before acceptance 429 and 503 always carry Retry-After; after it they must not be retried."""
    assert crash(client, DreameryError(code), accepted=False).headers["retry-after"] == "5"
    assert crash(client, DreameryError(code, retry_after=7), accepted=False).headers["retry-after"] == "7"
    assert "retry-after" not in crash(client, DreameryError(code), accepted=True).headers


def test_job_header_does_not_leak_into_next_request(client):
    crash(client, RuntimeError("x"), accepted=True)
    assert "x-job-id" not in client.get("/healthz").headers


def _refs(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from _refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from _refs(value)


def test_openapi_references_resolve_and_errors_are_documented(client):
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    schemas = document["components"]["schemas"]
    for ref in _refs(document):
        assert ref.removeprefix("#/components/schemas/") in schemas
    operations = [(path, method, op) for path, item in document["paths"].items() for method, op in item.items()]
    names = [op["operationId"] for _, _, op in operations]
    assert len(names) == len(set(names))
    for path, method, op in operations:
        for status, answer in op["responses"].items():
            if status == "default" or int(status) >= 400:
                schema = answer["content"]["application/json"]["schema"]
                assert schema["$ref"].endswith("/ErrorBody"), (path, method, status)
        assert "default" in op["responses"], (path, method)
        assert op["summary"], (path, method)
        if "security" in op:
            assert "401" in op["responses"], (path, method)
    images = document["paths"]["/v1/images/generations"]["post"]["responses"]
    assert {"200", "202", "400", "401", "404", "413", "415", "422", "429", "502", "503", "504"} <= set(images)
    assert set(schemas["ErrorObject"]["required"]) == {"message", "type", "param", "code"}
    assert "HTTPValidationError" not in schemas


def test_openapi_describes_request_bodies(client):
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert not list(_values_of(document, "$defs"))
    for path, item in document["paths"].items():
        for method, op in item.items():
            if method == "post" and "requestBody" in op:
                content = op["requestBody"]["content"]
                if path == "/v1/files":
                    assert set(content) == {"multipart/form-data"}, "only a form has a file part"
                    continue
                assert content["application/json"]["examples"], path
                assert "$ref" in content["application/json"]["schema"]
    edits = document["paths"]["/v1/images/edits"]["post"]
    form = schemas[edits["requestBody"]["content"]["multipart/form-data"]["schema"]["$ref"].rpartition("/")[2]]
    for name in ("image", "images", "mask"):
        assert form["properties"][name]["items"] == {"type": "string", "format": "binary"}
    assert form["properties"]["n"] == schemas["ImageGenerationRequest"]["properties"]["n"]
    assert form["required"] == ["prompt"]
    assert "text/event-stream" in edits["responses"]["200"]["content"]
    assert {"prefer", "idempotency-key"} <= {parameter["name"] for parameter in edits["parameters"]}
    assert "x-ratelimit-remaining-requests" in edits["responses"]["429"]["headers"]
    assert {tag["name"] for tag in document["tags"]} == {
        tag for item in document["paths"].values() for op in item.values() for tag in op["tags"]
    }


_MODULES = (schemas, admin_schemas, chat_schemas, session_check_schemas, videos_schemas, webhooks_schemas)


def _models_with_examples():
    for module in _MODULES:
        for model in vars(module).values():
            if isinstance(model, type) and issubclass(model, BaseModel) and model.__module__ == module.__name__:
                extra = model.model_config.get("json_schema_extra") or {}
                yield from ((model, example) for example in extra.get("examples", []))


def test_every_openapi_example_is_valid():
    """Each example validates against its model and has no unknown fields."""
    seen = list(_models_with_examples())
    assert len(seen) >= 15
    for model, example in seen:
        model.model_validate(example)
        known = set(model.model_fields) | {field.alias for field in model.model_fields.values() if field.alias}
        assert set(example) <= known, model


_STREAMS = ("/v1/chat/completions", "/v1/images/generations", "/v1/images/edits", "/v1/jobs/{job_id}/events")


def test_openapi_describes_responses(client):
    document = client.get("/openapi.json").json()
    for path, item in document["paths"].items():
        for method, op in item.items():
            successful = {status: answer for status, answer in op["responses"].items() if status[0] == "2"}
            assert successful, (path, method)
            for status, answer in successful.items():
                if "application/json" in answer.get("content", {}):
                    assert answer["content"]["application/json"]["schema"], (path, method, status)
            if "application/json" in op.get("requestBody", {}).get("content", {}):
                assert op["requestBody"]["content"]["application/json"]["examples"], (path, method)
    for path in _STREAMS:
        ((_, op),) = document["paths"][path].items()
        stream = op["responses"]["200"]["content"]["text/event-stream"]
        assert stream["schema"]["required"] == ["data"]
        assert "\ndata: " in f"\n{stream['example']}"
        assert stream["example"].endswith("\n\n")
    content = document["paths"]["/v1/videos/{video_id}/content"]["get"]["responses"]["200"]["content"]
    assert set(content) == {"video/mp4", "image/jpeg"}
    assert set(document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]) == {"text/plain"}
    for path, status in (("/v1/jobs/{job_id}/retry", "202"), ("/admin/v1/keys/{key_id}/rotate", "201")):
        assert {one for one in document["paths"][path]["post"]["responses"] if one[0] == "2"} == {status}
    for method in ("get", "delete"):
        shown = document["paths"]["/admin/v1/keys/{key_id}"][method]["responses"]["200"]["content"]
        assert shown["application/json"]["schema"]["$ref"].endswith("/ApiKey")
    job = document["paths"]["/v1/jobs/{job_id}"]["get"]["responses"]["200"]["content"]["application/json"]
    assert job["examples"]["1"]["value"]["object"] == "job"


def test_nested_models_become_components():
    class Inner(BaseModel):
        a: int

    class Outer(BaseModel):
        inner: Inner
        file: Any = None

    app = FastAPI()

    @app.post("/x", openapi_extra=body_openapi(Outer))
    async def accept() -> None:
        return None

    install_openapi(app)
    document = app.openapi()
    assert {"Inner", "Outer", "OuterForm"} <= set(document["components"]["schemas"])
    assert document["components"]["schemas"]["Outer"]["properties"]["inner"] == {"$ref": "#/components/schemas/Inner"}
    assert not list(_values_of(document, "$defs"))


def _values_of(node, key):
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        for value in node.values():
            yield from _values_of(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from _values_of(value, key)


@pytest.mark.parametrize(
    "path",
    [
        "/openai/deployments/a" + "/chat" * 12_000 + "%0A",
        "/openai/deployments/a" + "/videos/" * 7000 + "%0A",
        "/openai/deployments" + "/" * 60_000 + "a%0A",
        "/a" * 30_000,
    ],
)
def test_long_path_is_answered_at_once(client, path):
    """Before any key is checked: a search that begins again at each part takes ten seconds."""
    began = time.monotonic()
    for _ in range(3):
        assert client.get(path).status_code in {401, 404}
    assert time.monotonic() - began < 6


def test_docs_page_works_offline(client):
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    parts = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert [part for part in parts if "//" in part] == [], "nothing of another server"
    own = [part for part in parts if part.startswith("/docs/")]
    assert len(own) >= 3
    for part in own:
        answer = client.get(part)
        assert answer.status_code == 200
        assert len(answer.content) > 100
    assert b"SwaggerUIBundle" in client.get("/docs/swagger-ui-bundle.js").content
    assert_error(client.get("/docs/../../etc/passwd"), 404, "unknown_url")
    assert_error(client.get("/docs/core.py"), 404, "unknown_url")
