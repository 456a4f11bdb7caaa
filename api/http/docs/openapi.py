"""The OpenAPI document.

Completes the framework's document: bodies that `parse_body` reads become components, and each response lists the
headers that every response has.
"""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import orjson
from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool

from api.http.docs import page
from api.http.errors import ErrorBody
from worker.core.settings import get_settings

_ABOUT = """OpenAI-compatible generation on your own upstream accounts.

- **Key**: `Authorization: Bearer sk-dreamery-...`, or upstream session ids where they are enabled. Azure's `api-key`
  header works too.
- **Errors** have one form on every path: a status and `{"error": {"message", "type", "param", "code"}}`. The message is
  in Chinese if `Accept-Language` prefers it.
- **Waiting**: creating calls return the results. `Prefer: respond-async` returns the job at once, `Prefer: wait=20`
  waits for at most 20 seconds.
- **Retries**: send an `Idempotency-Key` and a repeat joins the first job. Once a job is accepted, the response carries
  `X-Job-Id`, and an error carries `x-should-retry: false`, because a retry would cost again.
- Unknown fields of a body are ignored.
"""
_TAGS = [
    {"name": "images", "description": "Generate images from text and images."},
    {"name": "videos", "description": "Generate videos from text, frames and references."},
    {"name": "chat", "description": "Generate images and videos, or use the agent, through chat."},
    {"name": "jobs", "description": "List, follow and cancel accepted jobs."},
    {"name": "files", "description": "Stored results. The link grants access to the file."},
    {"name": "albums", "description": "Albums of results, and links that share results with others."},
    {"name": "batches", "description": "Many requests from one file, in OpenAI's format, and the files they use."},
    {"name": "models", "description": "Available models."},
    {"name": "webhooks", "description": "Notifications when a job ends."},
    {"name": "ark", "description": "The official API's own format, for the vendor's libraries."},
    {"name": "session ids", "description": "Check whether upstream session ids are valid and what credit they have."},
    {"name": "accounts", "description": "Your own upstream accounts, used only for your jobs."},
    {"name": "keys", "description": "Your own API keys."},
    {"name": "usage", "description": "Your usage and your limits."},
    {"name": "admin", "description": "Users, API keys, limits, jobs and the audit log."},
    {"name": "console", "description": "Sign in to the web console."},
    {"name": "operations", "description": "Health, readiness and metrics."},
]
_HEADERS = {
    "X-Request-Id": "quote it when you report a problem",
    "openai-processing-ms": "milliseconds until the response began",
}
_CREATING_HEADERS = {
    "X-Job-Id": "the first job of the request, after it was accepted",
    "x-ratelimit-limit-requests": "creating requests that the caller may send per minute",
    "x-ratelimit-remaining-requests": "remaining creating requests",
    "x-ratelimit-reset-requests": "time until the limit resets, as `12ms`, `1s` or `6m0s`",
    "x-budget-warning": "limits that are almost reached: `user.jobs_per_day; used=81; soft=80; hard=100; reset=...`",
}


def install_openapi(app: FastAPI) -> None:
    """Serve the completed OpenAPI document and the Swagger UI page."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build_document(app)
        return app.openapi_schema

    encoded: bytes | None = None
    encoding = asyncio.Lock()

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi_document() -> Response:
        """Built at the first call: more than a second of work, in one thread, so that other requests are served."""
        nonlocal encoded
        async with encoding:
            if encoded is None:
                encoded = await run_in_threadpool(lambda: orjson.dumps(openapi()))
        return Response(encoded, media_type="application/json")

    app.openapi = openapi  # type: ignore[method-assign]  # the framework's own way to replace it
    app.include_router(page.router)


def _build_document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=_ABOUT, routes=app.routes, webhooks=app.webhooks.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    error = {ErrorBody.__name__: ErrorBody.model_json_schema(ref_template="#/components/schemas/{model}")}
    _move_definitions([document["paths"], error], schemas)
    schemas |= error
    used: set[str] = set()
    for item in document["paths"].values():
        for method, operation in item.items():
            _add_examples(operation, schemas)
            _add_response_headers(operation, creating=method == "post")
            used.update(operation.get("tags", []))
    if root := urlsplit(get_settings().public_url).path.rstrip("/"):
        document["servers"] = [{"url": root}]
    document["tags"] = [tag for tag in _TAGS if tag["name"] in used]
    return document


def _move_definitions(node: Any, schemas: dict[str, Any]) -> None:
    """Move every `$defs` of the tree to the components, where the references made by `ref_template` point."""
    if isinstance(node, dict):
        for name, schema in node.pop("$defs", {}).items():
            _move_definitions(schema, schemas)
            schemas.setdefault(name, schema)
        for value in node.values():
            _move_definitions(value, schemas)
    elif isinstance(node, list):
        for value in node:
            _move_definitions(value, schemas)


def _add_examples(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Copy the examples of a schema to the request body and the responses, where tools show them."""
    for body in (operation.get("requestBody", {}), *operation["responses"].values()):
        content = body.get("content", {}).get("application/json", {})
        schema = schemas.get(content.get("schema", {}).get("$ref", "").rpartition("/")[2], {})
        if "examples" not in content and schema.get("examples"):
            content["examples"] = {str(n): {"value": example} for n, example in enumerate(schema["examples"], start=1)}


def _add_response_headers(operation: dict[str, Any], *, creating: bool) -> None:
    descriptions = {**_HEADERS, **(_CREATING_HEADERS if creating else {})}
    for response in operation["responses"].values():
        headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in descriptions.items()}
        response["headers"] = {**headers, **response.get("headers", {})}
