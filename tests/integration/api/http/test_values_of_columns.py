"""Values that no column can hold: out of range, NUL bytes, lone surrogates, years beyond the calendar, deep JSON.

Every parameter of every documented operation gets each of them. The answer is success or an error object, never 5xx.
"""

import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest

from tests.support.api_client import ApiClient
from tests.support.platform import CheckedPlatform, start_platform

NUMBERS = [2**31, -(2**31) - 1, 2**63, -1, 10**30, 1.5, float("nan"), float("inf"), "__1e400__"]
TIMES = ["300000-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]
TEXTS = ["a\x00b", "\ud800", *TIMES, "9" * 400, "9" * 5000, "9" * 5000 + "x1", "²", "x" * 70_000]
DEEP: Any = []
for _ in range(150):
    DEEP = [DEEP]
SHAPES = [DEEP, {"a\x00b": "c\x00d"}, {"\ud800": "\udfff"}, [None], {"a": 10**30}]
# Streams and what ends the platform or the key of this test.
SKIPPED = {"/v1/jobs/events", "/v1/jobs/{job_id}/events", "/v1/drain", "/admin/v1/drain", "/console/session"}


@pytest.fixture(scope="module")
def values_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckedPlatform]:
    """A platform of its own: thousands of requests would use up the limit that other tests share."""
    env = {"DREAMERY_REQUESTS_PER_MINUTE": "0"}
    with start_platform(tmp_path_factory.mktemp("values"), extra_env=env, sandbox_seconds=0.0) as platform:
        yield platform


@pytest.fixture(scope="module")
def ids(values_platform: Any) -> Iterator[dict[str, str]]:
    """Ids of existing things, so that a request gets as far as the database."""
    with ApiClient(values_platform, values_platform.admin_key) as admin:
        http = admin.http
        link = admin.generate_images(n=1).json()["data"][0]["url"]
        user = http.post("/admin/v1/users", json={"name": "columns"}).json()["id"]
        key = http.post("/admin/v1/keys", json={"user": user}).json()["id"]
        job = http.post("/v1/images/generations", json={"prompt": "x"}, headers={"Prefer": "respond-async"}).json()
        account = http.post("/admin/v1/accounts", json={"tokens": "columns1:sandbox"}).json()
        hook = http.post("/v1/webhooks/endpoints", json={"url": "https://example.com/hook"}).json()
        yield {
            "user": user,
            "key_id": key,
            "job_id": job["id"],
            "account_id": (account.get("data") or [{}])[0].get("id", "account_x"),
            "endpoint_id": hook.get("id", "whe_x"),
            "link": link,
        }


def resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        schema = document["components"]["schemas"][name]
    return schema


def alternatives(document: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    schema = resolve(document, schema)
    found = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    return [one for part in found for one in alternatives(document, part)] if found else [schema]


def example(document: dict[str, Any], schema: dict[str, Any], depth: int = 0) -> Any:
    """Return a value of the schema: its example, or the simplest value."""
    schema = resolve(document, schema)
    for name in ("example", "default"):
        if schema.get(name) is not None:
            return schema[name]
    if schema.get("examples"):
        return schema["examples"][0]
    one = next((part for part in alternatives(document, schema) if part.get("type") != "null"), {})
    if "enum" in one or "const" in one:
        return one.get("const") or one["enum"][0]
    if one.get("type") == "object" and depth < 4:
        required = one.get("required", ())
        return {name: example(document, one["properties"][name], depth + 1) for name in required}
    if one.get("type") == "array":
        return [example(document, one.get("items", {}), depth + 1)] if depth < 4 else []
    return {"integer": 1, "number": 1.0, "boolean": True}.get(str(one.get("type")), "x")


# The gate sends every sixth value of each field, and over all fields each value many times. `TEST_EXAMPLES=1`: all.
STEP = 1 if os.environ.get("TEST_EXAMPLES") else 6
_turn = itertools.count()


def some(values: list[Any]) -> list[Any]:
    return values[next(_turn) % STEP :: STEP]


def bad_values(document: dict[str, Any], schema: dict[str, Any]) -> list[Any]:
    kinds = {str(part.get("type")) for part in alternatives(document, schema)}
    values: list[Any] = []
    if kinds & {"integer", "number", "None"}:
        values += NUMBERS
    if kinds & {"string", "None"}:
        values += TEXTS
    if kinds & {"object", "array", "None"}:
        values += SHAPES
    return values or [2**63, "a\x00b"]


def bodies(document: dict[str, Any], schema: dict[str, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield bodies in which one field has a bad value, with the name of the field."""
    for part in alternatives(document, schema):
        if part.get("type") == "array" and depth < 3:
            for name, value in bodies(document, part.get("items", {}), depth + 1):
                yield name, [value]
        if part.get("type") != "object" or not part.get("properties"):
            continue
        base = example(document, part)
        base = base if isinstance(base, dict) else {}
        for name, field in part["properties"].items():
            for value in some(bad_values(document, field)):
                yield name, {**base, name: value}
            if depth < 2:
                for inner, value in bodies(document, field, depth + 1):
                    yield f"{name}.{inner}", {**base, name: value}


def is_broken(answer: httpx.Response) -> bool:
    """Whether this is a fault of ours. An upstream that cannot be reached is none."""
    return answer.status_code == 500 or (answer.status_code >= 400 and "internal_error" in answer.text)


def as_json(value: Any) -> bytes:
    return json.dumps(value).replace('"__1e400__"', "1e400").encode()


def fill(path: str, ids: dict[str, str]) -> str:
    for name, value in ids.items():
        path = path.replace(f"{{{name}}}", value)
    return path


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        if path in SKIPPED:
            continue
        for method, operation in item.items():
            if method != "delete" or "{" not in path:
                yield method.upper(), path, operation


@pytest.mark.timeout(900 if STEP == 1 else 180)
def test_no_value_of_a_field_is_an_internal_error(values_platform: Any, ids: dict[str, str]) -> None:
    broken: dict[str, str] = {}
    with ApiClient(values_platform, values_platform.admin_key) as admin:
        document = admin.http.get("/openapi.json").json()
        for method, path, operation in operations(document):
            content = operation.get("requestBody", {}).get("content", {})
            schema = content.get("application/json", {}).get("schema")
            for name, body in bodies(document, schema) if schema else ():
                answer = admin.http.request(
                    method,
                    fill(path, ids),
                    content=as_json(body),
                    headers={"content-type": "application/json", "Prefer": "respond-async"},
                )
                if is_broken(answer):
                    broken.setdefault(f"{method} {path} {name}", f"{str(body)[:120]!r}: {answer.text[:200]}")
    assert not broken, "\n".join(f"{place}  {why}" for place, why in broken.items())


def test_no_value_of_a_parameter_is_an_internal_error(values_platform: Any, ids: dict[str, str]) -> None:
    broken: dict[str, str] = {}
    values = [str(value) for value in NUMBERS if value != "__1e400__"] + ["1e400", "%00", "a%00b", "%ED%A0%80", "%FF"]
    values += [
        *(time.replace("+", "%2B") for time in TIMES),
        "253402300799",
        "9" * 400,
        "9" * 5000,
        "%C2%B2",
        "x" * 3000,
        "job_" + "f" * 32,
    ]
    with ApiClient(values_platform, values_platform.admin_key) as admin:
        document = admin.http.get("/openapi.json").json()
        for method, path, operation in operations(document):
            for parameter in operation.get("parameters", ()):
                for value in some(values):
                    target, headers = fill(path, ids), {}
                    if parameter["in"] == "path":
                        target = fill(path.replace(f"{{{parameter['name']}}}", value), ids)
                    elif parameter["in"] == "query":
                        target = f"{target}?{parameter['name']}={value}"
                    else:
                        headers = {parameter["name"]: value}
                    if method != "GET":
                        headers["content-type"] = "application/json"
                    answer = admin.http.request(method, target, headers=headers, content=b"{}" if headers else None)
                    if is_broken(answer):
                        broken.setdefault(
                            f"{method} {path} {parameter['name']}", f"{value[:60]!r}: {answer.text[:200]}"
                        )
    assert not broken, "\n".join(f"{place}  {why}" for place, why in broken.items())


def test_no_value_of_a_form_is_an_internal_error(values_platform: Any) -> None:
    values: list[bytes] = [
        b"a\x00b",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"9" * 400,
        b"9" * 5000,
        "²".encode(),
        b"1e400",
        b"NaN",
        b"-1",
        b"2147483648",
    ]
    broken: dict[str, str] = {}
    with ApiClient(values_platform, values_platform.admin_key) as admin:
        for path in ("/v1/images/edits", "/v1/images/generations", "/v1/videos"):
            for name in ("prompt", "model", "n", "seed", "size", "seconds", "user", "metadata", "image[]", "x\x00y"):
                for value in values:
                    fields = {"prompt": b"a boat", name: value}
                    parts = b"".join(
                        b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (field.encode(), part)
                        for field, part in fields.items()
                    )
                    headers = {"content-type": "multipart/form-data; boundary=b", "Prefer": "respond-async"}
                    answer = admin.http.post(path, content=parts + b"--b--\r\n", headers=headers)
                    if is_broken(answer):
                        broken.setdefault(f"{path} {name}", f"{value[:40]!r}: {answer.text[:200]}")
    assert not broken, "\n".join(f"{place}  {why}" for place, why in broken.items())


HEADERS = [
    ("Range", "bytes={}-"), ("Range", "bytes=-{}"), ("Range", "bytes=0-{}"), ("Prefer", "wait={}"), ("Last-Event-ID", "{}"),
    ("If-Modified-Since", "{}"), ("X-Forwarded-For", "{}"), ("Idempotency-Key", "{}"), ("traceparent", "{}"), ("Accept-Language", "zh;q={}"),
    ("X-Stainless-Timeout", "{}"), ("X-Stainless-Read-Timeout", "{}"), ("Content-Type", "application/json; charset={}"),
]  # fmt: skip


def test_no_value_of_a_header_is_an_internal_error(values_platform: Any, ids: dict[str, str]) -> None:
    values = [
        b"9" * 5000,
        b"9" * 20,
        b"-1",
        b"1e400",
        b"nan",
        b"\xb2",
        b"\xff\xfe",
        b"\xc2\xb2",
        b"2147483648",
        b"9223372036854775808",
    ]
    broken: dict[str, str] = {}
    with ApiClient(values_platform, values_platform.admin_key) as admin:
        link = ids["link"]
        for name, form in HEADERS:
            for value in some(values):
                header = (name.encode(), form.encode().replace(b"{}", value))
                answers = [
                    httpx.get(link, headers=[header], trust_env=False),
                    admin.http.get(f"/v1/jobs/{ids['job_id']}", headers=[header]),
                    admin.http.post("/v1/estimate", headers=[header], content=b'{"prompt":"x"}'),
                ]
                for answer in answers:
                    if is_broken(answer):
                        broken.setdefault(f"{answer.request.url.path} {name}", f"{value[:40]!r}: {answer.text[:200]}")
    assert not broken, "\n".join(f"{place}  {why}" for place, why in broken.items())


def test_every_stored_job_can_be_shown(values_platform: Any) -> None:
    """What was accepted above can be read by every list and page."""
    with ApiClient(values_platform, values_platform.admin_key) as admin:
        for path in (
            "/v1/jobs?limit=100",
            "/admin/v1/jobs?limit=100",
            "/v1/usage",
            "/admin/v1/accounts",
            "/admin/v1/users",
        ):
            assert admin.http.get(path).status_code == 200, path
    with psycopg.connect(values_platform.database_url) as connection:
        assert connection.execute("SELECT count(*) FROM jobs WHERE error_code = 'internal_error'").fetchone() == (0,)
